// SPDX-License-Identifier: MIT
// Views of weights as CPU kernels see them; they own nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zmlx::cpu {

/// How scales and biases, or dense weights, are stored.
enum class FloatType { F32, F16, BF16 };

constexpr size_t size_of(FloatType type) {
  return type == FloatType::F32 ? 4 : 2;
}

/// What packed fields stand for, in MLX's names. Affine: scale * q + bias. The
/// others: scale times a float of four bits (e2m1) or eight (e4m3), with scales
/// of a byte (e8m0, a power of two; e4m3 in NVFP4) and without biases.
enum class Scheme { Affine, MXFP4, NVFP4, MXFP8 };

/// Rows of a block of a matrix in blocks: two vectors of 16 lanes.
constexpr int64_t kBlockRows = 32;

/// Words of 32 bits of a group of a vector that is prepared for a matrix in
/// blocks: three digits a column of a byte each, its scale, its sum.
constexpr int64_t prepared_group_words(int64_t columns) {
  return columns * 3 / 4 + 2;
}

/// A (rows, cols) matrix in MLX's packing: a scale, and a bias or none, for
/// each group of group_size columns. Rows are contiguous, or lie in blocks.
///
/// In blocks, of kBlockRows rows each, all of a block is one stream: for each
/// unit a word a row that holds its scales, then for each of the unit's words
/// of fields that word of every row. In the affine scheme, of 4 or 8 bits, a
/// unit is a group, with the scale in the low half of the word and the bias in
/// the high one; in MXFP4 and NVFP4 it is four groups, with a byte for the
/// scale of each. Nothing else lies in blocks.
struct PackedMatrix {
  const uint32_t* words = nullptr; // (rows, cols * bits / 32), or blocks
  const void* scales = nullptr; // (rows, cols / group_size); not in blocks
  const void* biases = nullptr; // likewise
  FloatType float_type = FloatType::BF16;
  int64_t rows = 0, cols = 0;
  int bits = 4, group_size = 64;
  Scheme scheme = Scheme::Affine;
  bool in_blocks = false;

  int64_t words_per_row() const {
    return cols * bits / 32;
  }
  int64_t groups_per_row() const {
    return cols / group_size;
  }
  /// Words of a group of a row.
  int64_t words_per_group() const {
    return group_size * bits / 32;
  }
  /// Groups of a unit of a block.
  int64_t groups_per_unit() const {
    return scheme == Scheme::Affine ? 1 : 4;
  }
  int64_t units_per_row() const {
    return groups_per_row() / groups_per_unit();
  }
  /// Words of a unit of a row, without the one of scales.
  int64_t words_per_unit() const {
    return groups_per_unit() * words_per_group();
  }
  /// Words of a unit of a block.
  int64_t block_unit_words() const {
    return kBlockRows * (1 + words_per_unit());
  }
  int64_t block_words() const {
    return units_per_row() * block_unit_words();
  }
  /// The block of a row.
  const uint32_t* block(int64_t row) const {
    return words + row / kBlockRows * block_words();
  }
  /// The scales of a group of a row of a block, with those of its unit.
  const uint32_t* unit(int64_t row, int64_t group) const {
    return block(row) + group / groups_per_unit() * block_unit_words() +
        row % kBlockRows;
  }
  /// The first word of a group of a row; the next one is word_stride() on.
  const uint32_t* group_words(int64_t row, int64_t group) const {
    if (!in_blocks) {
      return row_words(row) + group * words_per_group();
    }
    const int64_t before = group % groups_per_unit() * words_per_group();
    return unit(row, group) + (1 + before) * kBlockRows;
  }
  int64_t word_stride() const {
    return in_blocks ? kBlockRows : 1;
  }
  /// The scale of a group of a row where scales are bytes.
  uint8_t byte_scale(int64_t row, int64_t group) const {
    if (!in_blocks) {
      return static_cast<const uint8_t*>(row_scales(row))[group];
    }
    return static_cast<uint8_t>(*unit(row, group) >> (8 * (group % 4)));
  }
  /// The first byte to be read for rows from this one on.
  const void* rows_from(int64_t row) const {
    return in_blocks ? block(row) : row_words(row);
  }
  const uint32_t* row_words(int64_t row) const {
    return words + row * words_per_row();
  }
  const void* row_scales(int64_t row) const {
    return row_of_groups(scales, row);
  }
  const void* row_biases(int64_t row) const {
    return row_of_groups(biases, row);
  }
  /// The same from a row on; in blocks, from its block on.
  PackedMatrix from(int64_t row) const {
    PackedMatrix rest = *this;
    if (in_blocks) {
      rest.words = block(row);
      return rest;
    }
    rest.words = row_words(row);
    rest.scales = row_scales(row);
    rest.biases = row_biases(row);
    return rest;
  }
  /// Matrix `index` of a stack of equal ones.
  PackedMatrix at(int64_t index) const {
    return from(index * rows);
  }
  uint64_t nbytes() const {
    return static_cast<uint64_t>(rows) *
        (words_per_row() * 4 +
         groups_per_row() * (scheme == Scheme::Affine ? 2 : 1) * scale_size());
  }

 private:
  const void* row_of_groups(const void* groups, int64_t row) const {
    return static_cast<const char*>(groups) +
        row * groups_per_row() * scale_size();
  }
  int64_t scale_size() const {
    return scheme == Scheme::Affine ? static_cast<int64_t>(size_of(float_type))
                                    : 1;
  }
};

/// A (rows, cols) matrix of floats as stored. Rows are contiguous.
struct DenseMatrix {
  const void* values = nullptr; // (rows, cols)
  FloatType type = FloatType::BF16;
  int64_t rows = 0, cols = 0;

  const void* row(int64_t row) const {
    return static_cast<const char*>(values) +
        row * cols * static_cast<int64_t>(size_of(type));
  }
  /// Matrix `index` of a stack of equal ones.
  DenseMatrix at(int64_t index) const {
    DenseMatrix one = *this;
    one.values = row(index * rows);
    return one;
  }
  uint64_t nbytes() const {
    return static_cast<uint64_t>(rows * cols) * size_of(type);
  }
};

} // namespace zmlx::cpu
