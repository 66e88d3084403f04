// SPDX-License-Identifier: MIT
// Vectors of cached rows, whatever they are stored as. Included once a target.

#if defined(ZMLX_ATTENTION_CACHED_ROWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_ATTENTION_CACHED_ROWS_INL_H
#undef ZMLX_ATTENTION_CACHED_ROWS_INL_H
#else
#define ZMLX_ATTENTION_CACHED_ROWS_INL_H
#endif

#include <algorithm>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "zmlx/kernels/attention/cached_head.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Positions to ask for ahead of use, 4 kB of 64 floats: 29 GB/s a thread
// instead of 20.
constexpr int64_t kAhead = 16;

struct FloatRows {
  FloatRows(const CachedRows& rows, int64_t dim)
      : values(rows.floats), dim(dim) {}

  template <class D>
  HWY_INLINE hn::Vec<D> load(D d, int64_t position, int64_t i) const {
    return hn::LoadU(d, values + position * dim + i);
  }

  HWY_INLINE void prefetch(int64_t position) const {
    for (int64_t i = 0; i < dim; i += 16) {
      hwy::Prefetch(values + position * dim + i);
    }
  }

  const float* values;
  int64_t dim;
};

struct ByteRows {
  ByteRows(const CachedRows& rows, int64_t dim)
      : rows(rows), dim(dim), groups(dim / rows.group_size) {}

  template <class D>
  HWY_INLINE hn::Vec<D> load(D d, int64_t position, int64_t i) const {
    const hn::Rebind<uint8_t, D> bytes;
    const hn::Rebind<int32_t, D> integers;
    const auto values = hn::ConvertTo(
        d,
        hn::PromoteTo(
            integers, hn::LoadU(bytes, rows.bytes + position * dim + i)));
    const int64_t group = position * groups + i / rows.group_size;
    return hn::MulAdd(
        values, hn::Set(d, rows.scales[group]), hn::Set(d, rows.biases[group]));
  }

  HWY_INLINE void prefetch(int64_t position) const {
    for (int64_t i = 0; i < dim; i += 64) {
      hwy::Prefetch(rows.bytes + position * dim + i);
    }
    hwy::Prefetch(rows.scales + position * groups);
    hwy::Prefetch(rows.biases + position * groups);
  }

  CachedRows rows;
  int64_t dim, groups;
};

/// The largest of `count` >= 0 values and `most`.
HWY_INLINE float largest(const float* values, int64_t count, float most) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto best = hn::Set(d, most);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    best = hn::Max(hn::LoadU(d, values + i), best);
  }
  most = hn::GetLane(hn::MaxOfLanes(d, best));
  for (; i < count; ++i) {
    most = std::max(most, values[i]);
  }
  return most;
}

/// Calls step with the reader of these rows.
template <class Step>
HWY_INLINE void
with_rows(const CachedRows& rows, int64_t dim, const Step& step) {
  if (rows.floats) {
    step(FloatRows(rows, dim));
  } else {
    step(ByteRows(rows, dim));
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
