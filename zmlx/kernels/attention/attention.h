// SPDX-License-Identifier: MIT
// Attention over a cache as one CPU primitive: normalises and rotates queries
// and keys, appends to the cache in place, and attends.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx::attention {

namespace mx = mlx::core;

/// Rotary positions of halves (Su et al., arXiv:2104.09864): pair i of a head
/// is turned by position * scale / period(i).
struct Rope {
  float theta = 10000;
  float scale = 1;
  /// (head_dim / 2) periods; null: theta^(2 i / head_dim).
  std::shared_ptr<const std::vector<float>> periods = nullptr;

  /// 1 / period of each pair, as MLX rounds it.
  std::vector<float> frequencies(int head_dim) const;
  bool operator==(const Rope& other) const;
};

struct Spec {
  int heads = 1, kv_heads = 1, head_dim = 64;
  Rope rope = {};
  float norm_eps = 1e-5f;
};

struct Inputs {
  mx::array queries; // (batch, length, heads * head_dim)
  mx::array keys, values; // (batch, length, kv_heads * head_dim)
  /// (head_dim) both, or neither: queries and keys are rotated as they are.
  std::optional<mx::array> query_norm, key_norm;
  mx::array cached_keys; // (batch, kv_heads, capacity, head_dim)
  mx::array cached_values; // likewise
};

struct Outputs {
  mx::array y; // (batch, length, heads * head_dim)
  mx::array cached_keys, cached_values; // with the new rows
};

/// A cache in 8 or 4 bits, as mlx.core.quantize makes it.
struct PackedCache {
  mx::array words; // (batch, kv_heads, capacity, dim * bits / 32)
  mx::array scales, biases; // (batch, kv_heads, capacity, groups) float32
};

struct PackedInputs {
  mx::array queries, keys, values; // as above
  std::optional<mx::array> query_norm, key_norm; // likewise
  PackedCache cached_keys, cached_values;
};

struct PackedOutputs {
  mx::array y;
  PackedCache cached_keys, cached_values;
};

/// Causal grouped-query attention of the new tokens at positions offset ..
/// offset + length - 1 over all cached ones, scaled by head_dim^-1/2. All
/// arrays float32; the caches must have room, and are updated in place when
/// nobody else holds them. Throws std::invalid_argument on a mismatch.
Outputs attend(const Inputs& in, const Spec& spec, int offset);

/// The same over a cache in 8 or 4 bits; new keys and values are rounded before
/// they are attended to.
PackedOutputs
attend_packed(const PackedInputs& in, const Spec& spec, int offset);

} // namespace zmlx::attention
