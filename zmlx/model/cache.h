// SPDX-License-Identifier: MIT
// What a model remembers of earlier tokens, one cache a layer.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// The state of one layer. Not safe for use from two threads at once.
class LayerCache {
 public:
  virtual ~LayerCache() = default;
  /// The arrays that must be evaluated before the next step.
  virtual std::vector<mx::array> state() const = 0;
  /// Bytes held.
  size_t nbytes() const;

  /// Tokens that will come, if that is known: room is made for them at once.
  int expected = 0;
};

/// Keys and values of an attention layer, (batch, kv_heads, length, head_dim),
/// of a capacity in steps of 256 as mlx_lm's KVCache has it.
class KVCache : public LayerCache {
 public:
  /// Appends keys and values (batch, kv_heads, new, head_dim) and returns all
  /// that is held so far.
  std::pair<mx::array, mx::array> update_and_fetch(
      const mx::array& keys,
      const mx::array& values);

  /// Makes room for `count` more tokens; shape: (batch, kv_heads, any,
  /// head_dim).
  void reserve(int count, mx::Shape shape, mx::Dtype dtype);

  std::vector<mx::array> state() const override;

  /// The number of tokens held.
  int offset = 0;
  /// (batch, kv_heads, capacity, head_dim); none before the first token.
  std::optional<mx::array> keys, values;
  /// The row at which each sequence of the batch starts, where they differ in
  /// length; empty: all at 0. Only a StepExecutor may know of it.
  std::vector<int> starts;

  static constexpr int kStep = 256;
};

/// The last kernel_size - 1 inputs of a short convolution,
/// (batch, kernel_size - 1, dim); none before the first token.
class ConvCache : public LayerCache {
 public:
  std::vector<mx::array> state() const override;
  std::optional<mx::array> inputs;
};

/// One entry a layer, in the order of layers.
using Cache = std::vector<std::unique_ptr<LayerCache>>;

/// Tells every layer how many tokens it will hold in the end.
void expect(Cache& cache, int tokens);

/// Evaluates the state of every layer.
void eval(const Cache& cache);

} // namespace zmlx
