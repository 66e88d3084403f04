// SPDX-License-Identifier: MIT
// The work of an attention call, on evaluated arrays.
#pragma once

#include "zmlx/kernels/attention/attention.h"
#include "zmlx/kernels/attention/cached_head.h"
#include "zmlx/kernels/common/rows.h"

namespace zmlx::attention {

/// One call's data.
struct Call {
  const Spec& spec;
  int batch, length, offset;
  int64_t capacity;
  RowReader queries, keys, values;
  const float *query_norm, *key_norm; // or null
  cpu::CacheRows cached_keys, cached_values;
  float* y;

  cpu::CachedHead head(int b, int kv_head) const {
    const int64_t first = cache_row(b, kv_head, 0);
    return {cached_keys.from(first), cached_values.from(first), spec.head_dim};
  }
  int64_t cache_row(int b, int kv_head, int position) const {
    return (int64_t{b} * spec.kv_heads + kv_head) * capacity + position;
  }
};

/// Appends the new keys and values, and attends.
void run(const Call& call);

} // namespace zmlx::attention
