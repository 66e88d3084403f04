// SPDX-License-Identifier: MIT
// Weights of a decode program's stages as the CPU multiplies by them, packed or
// dense, and vectors prepared for them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <variant>
#include <vector>

#include "zmlx/kernels/common/matvec.h"
#include "zmlx/model/decode/program.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::decode {

/// A matrix, or a stack of them, of either kind; owns nothing.
class MatrixView {
 public:
  /// Of evaluated arrays.
  explicit MatrixView(const Weight& weight);

  int64_t rows() const {
    return std::visit([](const auto& w) { return w.rows; }, stored_);
  }
  int64_t cols() const {
    return std::visit([](const auto& w) { return w.cols; }, stored_);
  }
  /// Bytes of one matrix.
  uint64_t nbytes() const {
    return std::visit([](const auto& w) { return w.nbytes(); }, stored_);
  }
  /// Matrix `index` of a stack of equal ones.
  MatrixView at(int64_t index) const;
  /// Where rows from this one on lie.
  cpu::RowsAhead ahead(int64_t row) const;
  /// Likewise of [begin, end), of which the bytes are told too.
  cpu::RowsAhead ahead(Range range) const;
  /// out[col] = the values of a row.
  void copy_row(int64_t row, float* out) const;
  /// y[i][row - begin] = W[row] . x[i] for rows [begin, end) and `count`
  /// vectors prepared for W's Format. Bitwise the same however rows and vectors
  /// are split.
  void matvec(
      const cpu::PreparedVector* const* x,
      int64_t count,
      int64_t begin,
      int64_t end,
      float* const* y,
      const cpu::RowsAhead& next = {}) const;

  /// Null for a dense matrix.
  const cpu::PackedMatrix* packed() const {
    return std::get_if<cpu::PackedMatrix>(&stored_);
  }

 private:
  using Stored = std::variant<cpu::PackedMatrix, cpu::DenseMatrix>;
  explicit MatrixView(Stored stored) : stored_(stored) {}

  Stored stored_;
};

/// What a vector must be prepared for: matrices that agree in this share it.
struct Format {
  int64_t cols;
  int bits = 0, group_size = 0; // none for dense matrices
  bool in_blocks = false;

  explicit Format(const MatrixView& w) : cols(w.cols()) {
    if (const auto* packed = w.packed()) {
      bits = packed->bits;
      group_size = packed->group_size;
      in_blocks = packed->in_blocks;
    }
  }
  void reserve(cpu::PreparedVector& vector) const {
    if (group_size == 0) {
      vector.reserve(cols);
    } else {
      vector.reserve(cols, bits, group_size, in_blocks);
    }
  }
  bool operator==(const Format& other) const {
    return cols == other.cols &&
        cpu::has_nibble_digits(bits) == cpu::has_nibble_digits(other.bits) &&
        group_size == other.group_size && in_blocks == other.in_blocks;
  }
};

/// Vectors prepared for matrices, a list of rows for each format in use.
class PreparedPool {
 public:
  /// The index of a format, added when it is new.
  int index_of(const MatrixView& w) {
    const Format format(w);
    const auto found = std::find_if(all_.begin(), all_.end(), [&](auto& one) {
      return one.format == format;
    });
    if (found != all_.end()) {
      return static_cast<int>(found - all_.begin());
    }
    all_.push_back({format, {}});
    return static_cast<int>(all_.size()) - 1;
  }
  void reserve(int rows) {
    for (auto& one : all_) {
      while (one.rows.size() < static_cast<size_t>(rows)) {
        one.format.reserve(one.rows.emplace_back());
      }
    }
  }
  std::vector<cpu::PreparedVector>& operator[](int index) {
    return all_[static_cast<size_t>(index)].rows;
  }

 private:
  struct Prepared {
    Format format;
    std::vector<cpu::PreparedVector> rows;
  };
  std::vector<Prepared> all_;
};

/// A matrix (or a stack of them) of a stage, and where vectors prepared for it
/// are.
struct Matrix {
  MatrixView view;
  int pool_index = 0;

  Matrix(const Weight& weight, PreparedPool& pool)
      : view(weight), pool_index(pool.index_of(view)) {}
};

} // namespace zmlx::decode
