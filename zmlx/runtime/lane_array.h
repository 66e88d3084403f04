// SPDX-License-Identifier: MIT
// Arrays of any dtype and strides, read and written as runs of float lanes.
#pragma once

#include <cstdint>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx::cpu {

namespace mx = mlx::core;

/// Lengths and strides (in elements) of the axes in which lanes follow each
/// other, outermost first.
struct Layout {
  std::vector<int64_t> lengths, strides;

  /// That of `array` broadcast to `shape`.
  static Layout broadcast(const mx::array& array, const mx::Shape& shape);
  /// That of a row-contiguous array.
  static Layout contiguous(const mx::Shape& shape);
  /// Makes `axis` the innermost or the outermost one.
  void move_last(int axis);
  void move_first(int axis);
  /// Joins axes that are walked as one.
  void simplify();
};

/// An array of lanes, numbered in the order of its layout.
class LaneArray {
 public:
  /// The array is evaluated, and outlives this.
  LaneArray(const mx::array& array, Layout layout);

  /// One value stands for all.
  bool uniform() const {
    return layout_.lengths.size() == 1 && layout_.strides[0] == 0;
  }
  /// The address of lanes [begin, begin + count) if they are float32 one after
  /// the other, else nullptr.
  float* direct(int64_t begin, int64_t count) const;
  /// Copies the lanes to `out`.
  void read(int64_t begin, int64_t count, float* out) const;
  /// Copies `lanes` here, converted. Integers saturate, NaN gives 0.
  void write(int64_t begin, int64_t count, const float* lanes) const;

 private:
  template <class F>
  void for_each_run(int64_t begin, int64_t count, const F& f) const;

  Layout layout_;
  mx::Dtype dtype_;
  char* data_;
};

} // namespace zmlx::cpu
