// SPDX-License-Identifier: MIT
// Matrix times many vectors on the CPU, at float32 accuracy: quantised matrices
// through integer dot products where the machine has them, all else in floats.
#pragma once

#include <cstdint>
#include <vector>

#include "zmlx/kernels/common/aligned.h"
#include "zmlx/kernels/common/packed_matrix.h"

namespace zmlx::cpu {

/// Vectors prepared for gemm(), in tiles of a few that pass over a matrix
/// together.
///
/// For a quantised matrix, where the machine has integer dot products, a value
/// is held as in PreparedVector (matvec.h): 24 bits in three digits, with one
/// scale a group of the matrix, so that the accuracy is that of float32. Else
/// tiles hold the floats.
class PreparedRows {
 public:
  /// Takes `count` vectors of w.cols floats, which must outlive this. Then
  /// every tile must be prepared, each by any thread.
  void reserve(const PackedMatrix& w, const float* const* x, int64_t count);
  void reserve(const DenseMatrix& w, const float* const* x, int64_t count);
  void prepare_tile(int64_t tile);

  /// All of it on the calling thread.
  template <class Matrix>
  void prepare(const Matrix& w, const float* const* x, int64_t count) {
    reserve(w, x, count);
    for (int64_t tile = 0; tile < tiles(); ++tile) {
      prepare_tile(tile);
    }
  }

  int64_t count() const {
    return static_cast<int64_t>(x_.size());
  }
  int64_t cols() const {
    return cols_;
  }
  int64_t tiles() const {
    return tiles_;
  }
  /// first_row(tiles()) is count().
  int64_t first_row(int64_t tile) const {
    return count() * tile / tiles_;
  }
  const float* row(int64_t i) const {
    return x_[i];
  }

  /// Whether tiles hold integers: for each group, digits (middle low high,
  /// column / 4, row) of four bytes each, where groups of nibbles have their
  /// even columns before the odd ones in every eight. Else (column, row)
  /// floats. For a matrix in blocks they are block_digits() instead.
  bool integers() const {
    return group_size_ != 0;
  }
  bool nibbles() const {
    return nibbles_;
  }
  int group_size() const {
    return group_size_;
  }
  int64_t groups() const {
    return cols_ / group_size_;
  }
  int32_t* digits(int64_t tile) {
    return digits_.data() + first_row(tile) * cols_ * 3 / 4;
  }
  const int32_t* digits(int64_t tile) const {
    return const_cast<PreparedRows*>(this)->digits(tile);
  }
  bool for_blocks() const {
    return for_blocks_;
  }
  /// Row i as PreparedVector::digits() has it for a matrix in blocks.
  int32_t* block_digits(int64_t i) {
    return digits_.data() + i * groups() * prepared_group_words(group_size_);
  }
  const int32_t* block_digits(int64_t i) const {
    return const_cast<PreparedRows*>(this)->block_digits(i);
  }
  /// With integers (group, row) scales and then likewise the sums of values,
  /// else the values, with room for the largest tile.
  float* floats(int64_t tile) {
    return floats_.data() +
        (integers() ? first_row(tile) * 2 * groups()
                    : tile * most_rows_ * cols_);
  }
  const float* floats(int64_t tile) const {
    return const_cast<PreparedRows*>(this)->floats(tile);
  }
  /// Whether row i must be multiplied in floats all the same: NaN, infinite or
  /// tiny.
  uint8_t& needs_float(int64_t i) {
    return needs_float_[i];
  }
  bool needs_float(int64_t i) const {
    return needs_float_[i] != 0;
  }

 private:
  void reserve(
      const float* const* x,
      int64_t count,
      int64_t cols,
      int64_t most_rows);

  std::vector<const float*> x_;
  AlignedVector<uint8_t> needs_float_;
  AlignedVector<int32_t> digits_;
  AlignedVector<float> floats_;
  int64_t cols_ = 0, tiles_ = 0, most_rows_ = 0;
  int group_size_ = 0; // 0: floats
  bool nibbles_ = false, for_blocks_ = false;
};

/// y[i][row - begin] = W[row] . x[i] for every prepared vector i and rows
/// [begin, end) of W. Bitwise the same however rows and vectors are split.
void gemm(
    const PackedMatrix& w,
    int64_t begin,
    int64_t end,
    const PreparedRows& x,
    float* const* y);
void gemm(
    const DenseMatrix& w,
    int64_t begin,
    int64_t end,
    const PreparedRows& x,
    float* const* y);

/// From this many vectors on gemm() is faster than matvec() on each.
inline constexpr int64_t kGemmVectors = 4;
inline constexpr int64_t kDenseGemmVectors = 16;

/// A good number of rows for one call of gemm().
inline constexpr int64_t kGemmRows = 128;

} // namespace zmlx::cpu
