// SPDX-License-Identifier: MIT
// mlx_lm's cache objects as the C++ networks' caches, for the time of a call.
#pragma once

#include <optional>
#include <vector>

#include "python/bindings/bind.h"
#include "zmlx/model/cache.h"
#include "zmlx/model/decode/program.h"

/// What the network keeps of one layer: (kv_heads, head_dim) of keys and
/// values, or (taps - 1, dim) of inputs.
struct LayerShape {
  bool attends = false;
  int rows = 0, cols = 0;
};

/// One entry a layer of the program.
std::vector<LayerShape> layer_shapes(const zmlx::decode::Program& program);

/// The caches of one call. Their arrays are taken out of the Python objects, so
/// that a step can update them in place; put_back() stores the new ones, and
/// without it the old ones return when this goes out of scope.
class TakenCaches {
 public:
  /// Looks at the objects, without changing them; none when the network cannot
  /// serve `length` tokens with them: another class than KVCache,
  /// RotatingKVCache, BatchKVCache or ArraysCache, a window that is full,
  /// padding among the new tokens. Throws std::invalid_argument when their
  /// batch is not `batch` or they are of another network.
  static std::optional<TakenCaches> look(
      nb::list caches,
      const std::vector<LayerShape>& shapes,
      int batch,
      int length);

  TakenCaches(TakenCaches&&) = default;
  TakenCaches& operator=(TakenCaches&&) = delete;
  ~TakenCaches();

  /// Whether sequences start at different rows.
  bool has_starts() const;

  /// Takes the arrays, cast to float32, or where `narrow` to the type of the
  /// first; those do not return without undo().
  zmlx::Cache take(bool narrow);
  /// `written`: what the arrays' values wait for, unseen by MLX, or none.
  void put_back(zmlx::Cache& cache, const std::optional<mx::array>& written);
  /// The same after a step that failed: no tokens were added.
  void undo(zmlx::Cache& cache, const std::optional<mx::array>& written);

 private:
  enum class Kind { KV, Rotating, Batch, Arrays };
  struct Layer {
    nb::object object;
    Kind kind = Kind::KV;
    int offset = 0; // rows held
    int max_size = 0; // of a window
    std::vector<int> starts; // of a batch
    std::vector<mx::array> held; // what take() took
  };
  TakenCaches() = default;
  static bool look(Layer& layer, const LayerShape& shape, int length);
  void check(const Layer& layer, const LayerShape& shape) const;
  void advance_padding(const Layer& layer);

  std::vector<Layer> layers_;
  int batch_ = 0, length_ = 0;
  bool taken_ = false;
};
