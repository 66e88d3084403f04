// SPDX-License-Identifier: MIT
// Reads rows of any array as float32, and writes float32 rows in any type.
#pragma once

#include <cstdint>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// The last axis of an array as rows of float32. The array may be strided and
/// of float32, float16 or bfloat16; float32 rows that are contiguous are not
/// copied. It must outlive the reader, and be evaluated when rows are read.
class RowReader {
 public:
  explicit RowReader(const mx::array& array);

  int64_t rows() const {
    return rows_;
  }
  int64_t width() const {
    return width_;
  }
  /// Row r, valid until scratch is used again. scratch is grown to width().
  const float* row(int64_t r, std::vector<float>& scratch) const;
  /// Copies row r to out (width floats).
  void copy(int64_t r, float* out) const;

 private:
  int64_t offset(int64_t r) const;

  const mx::array& array_;
  int64_t rows_, width_;
};

/// Stores row r of a row-contiguous output of any of those types.
void store_row(mx::array& out, int64_t r, const float* values, int64_t width);

/// The rows of x, and of a row-contiguous output, as float32: in place where
/// they are float32 already, else in buffers that store() converts back. Both
/// arrays are evaluated and outlive it.
class RowsInOut {
 public:
  RowsInOut(const mx::array& x, mx::array& out);
  /// Puts y into the output; needed once all of it is computed.
  void store();

  std::vector<const float*> x;
  std::vector<float*> y;

 private:
  mx::array& out_;
  std::vector<std::vector<float>> scratch_;
  std::vector<float> results_; // empty when y is the output itself
};

/// Converts count values of dtype float32, float16 or bfloat16.
void to_float(const void* values, mx::Dtype dtype, int64_t count, float* out);

} // namespace zmlx
