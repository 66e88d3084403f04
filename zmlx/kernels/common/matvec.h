// SPDX-License-Identifier: MIT
// Quantised matrix times vector on the CPU, at float32 accuracy through
// integer dot products.
#pragma once

#include <cstdint>

#include "zmlx/kernels/common/aligned.h"
#include "zmlx/kernels/common/packed_matrix.h"

namespace zmlx::cpu {

/// Whether digits for fields of so many bits have even columns before odd ones;
/// see PreparedVector::digits().
constexpr bool has_nibble_digits(int bits) {
  return bits <= 4;
}

/// A vector prepared for matvec().
///
/// Each block of 32 values is held as integers of 24 bits with one scale,
/// x = scale * (65536 d0 + 256 d1 + d2), digits d in [-128, 127]. An integer
/// dot product of unsigned weights and signed digits is exact, so the only
/// roundings are one of the value, to 2^-24 of its block's largest (what
/// float32 itself has), and those of summing the blocks.
class PreparedVector {
 public:
  /// Prepares x (w.cols values, a multiple of 32) for matrices like w.
  void prepare(const float* x, const PackedMatrix& w);

  /// The same in parts, which threads may share: reserve() once, then columns
  /// [begin, end) of x, with multiples of 128 (end may be cols).
  void reserve(int64_t cols, int bits, int group_size, bool in_blocks = false);
  /// For dense matrices, of any number of columns: only values() is prepared.
  void reserve(int64_t cols);
  void prepare_part(const float* x, int64_t begin, int64_t end);

  /// For a matrix in blocks, blocks of a vector are the matrix's groups, one
  /// after the other: digits (column / 4, middle low high) of four bytes each,
  /// where nibbles have their even columns before the odd ones in every eight,
  /// then the group's scale and the sum of its (rounded) values as floats.
  ///
  /// Else digits for fields of up to four bits stand in chunks of 128 columns:
  /// 3 digits x (even columns, odd columns) x 64 bytes; those of others in
  /// chunks of 64 columns: 3 digits x 64 bytes. Unused columns are zero.
  const int8_t* digits() const {
    return digits_.data();
  }
  /// The block's scale for each int32 lane of such a chunk.
  const float* lane_scales() const {
    return scales_.data();
  }
  /// Sum of the (rounded) values of each group; not for a matrix in blocks.
  const float* group_sums() const {
    return group_sums_.data();
  }
  /// The values as given, for targets without integer dot products and for
  /// what integers cannot hold.
  const float* values() const {
    return values_.data();
  }
  /// Whether some value is NaN, infinite, or in a block of tiny ones (all below
  /// 1e-30), so that the product must be taken in floats.
  bool needs_float() const;

 private:
  /// Columns and bytes of digits of a chunk.
  int64_t chunk_columns() const {
    return nibbles_ ? 128 : 64;
  }
  int64_t chunk_digits() const {
    return 3 * chunk_columns();
  }

  void prepare_groups(const float* x, int64_t begin, int64_t end);
  void prepare_chunks(const float* x, int64_t begin, int64_t end);

  AlignedVector<float> values_, scales_, group_sums_;
  AlignedVector<uint8_t> needs_float_; // one flag a chunk or group
  AlignedVector<int8_t> digits_;
  int group_size_ = 0;
  bool nibbles_ = false, in_blocks_ = false;
};

/// Where some rows lie, for prefetching.
struct RowsAhead {
  const void *words = nullptr, *scales = nullptr, *biases = nullptr;
  int64_t second = 0; // bytes to the block that is read beside words' one
  int64_t bytes = 0; // from words on that will be read, as far as told

  RowsAhead() = default;
  RowsAhead(const PackedMatrix& w, int64_t row)
      : words(w.rows_from(row)),
        scales(w.in_blocks ? nullptr : w.row_scales(row)),
        biases(w.in_blocks ? nullptr : w.row_biases(row)),
        second(
            w.in_blocks && row + kBlockRows < w.rows ? 4 * w.block_words()
                                                     : 0) {}
};

/// y[row - begin] = sum over columns of W[row] * x for rows [begin, end).
/// x was prepared for W's cols, bits and group size. Bitwise the same however
/// the rows are split. next: what the caller reads after these rows, so that
/// memory does not pause between them.
void matvec(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    const RowsAhead& next = {});

/// The same for several vectors, y[i] of x[i], that pass over the rows
/// together.
void matvec(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    const RowsAhead& next = {});

/// The same for a matrix in blocks and vectors of which only the digits are
/// told, as PreparedVector::digits() has them; where the machine has integer
/// dot products.
void multiply_blocks(
    const PackedMatrix& w,
    const int32_t* const* digits,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    const RowsAhead& next = {});

/// Whether this machine multiplies faster by matrices in blocks.
bool prefers_blocks();

/// out[col] = the values of a row, cols floats.
void dequantize_row(const PackedMatrix& w, int64_t row, float* out);

/// The name of the instruction set in use: "AVX3_DL", "AVX2", "NEON", ...
const char* target_name();

} // namespace zmlx::cpu
