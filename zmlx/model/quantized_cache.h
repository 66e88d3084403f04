// SPDX-License-Identifier: MIT
// Keys and values in fewer bits, with mlx_lm's options.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "zmlx/model/cache.h"

namespace zmlx {

/// Rows (batch, kv_heads, capacity, head_dim) as mlx.core.quantize makes them:
/// words (..., head_dim * bits / 32) uint32, scales and biases (..., head_dim /
/// group_size).
struct QuantizedRows {
  mx::array words, scales, biases;

  std::vector<mx::array> arrays() const {
    return {words, scales, biases};
  }
};

/// mlx_lm's QuantizedKVCache: a KVCache in affine quantisation.
class QuantizedKVCache : public LayerCache {
 public:
  /// Takes over what a cache holds. Throws std::invalid_argument unless bits
  /// are 2, 3, 4, 5, 6 or 8 and group_size is 32, 64 or 128 and divides
  /// head_dim.
  QuantizedKVCache(const KVCache& held, int bits, int group_size);

  /// Appends keys and values (batch, kv_heads, new, head_dim) and returns all
  /// that is held so far.
  std::pair<QuantizedRows, QuantizedRows> update_and_fetch(
      const mx::array& keys,
      const mx::array& values);

  /// Makes room for `count` more tokens.
  void reserve(int count);

  std::vector<mx::array> state() const override;

  /// The number of tokens held.
  int offset = 0;
  QuantizedRows keys, values;
  const int bits, group_size;
};

/// mlx_lm's kv_bits, kv_group_size and quantized_kv_start.
struct KVQuantization {
  /// Of a cached value; 0 leaves the cache as it is.
  int bits = 0;
  int group_size = 64;
  /// Tokens from which on a cache is quantised.
  int start = 0;
};

/// Throws std::invalid_argument for bits or a group size that no cache has.
void check(const KVQuantization& options);

/// Quantises the KVCache of every layer that holds at least options.start
/// tokens, and at least one.
void quantize(Cache& cache, const KVQuantization& options);

} // namespace zmlx
