// SPDX-License-Identifier: MIT
// A copy of a quantised matrix with rows in blocks, in huge pages.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "zmlx/kernels/common/packed_matrix.h"

namespace zmlx::cpu {

/// Gives `count` rows from `first` on, as a matrix that starts with them;
/// `buffer` is the calling thread's to put them in, and keeps its size from
/// call to call. Called on several threads at once; may throw.
using ReadRows = std::function<
    PackedMatrix(int64_t first, int64_t count, std::vector<char>& buffer)>;

/// Owns what a PackedMatrix in blocks looks at.
class RowBlocks {
 public:
  /// Whether matrices like w can lie in blocks.
  static bool fit(const PackedMatrix& w);

  /// Of `count` matrices in rows, one after the other, the first of them w. On
  /// the library's team.
  RowBlocks(const PackedMatrix& w, int64_t count);

  /// The same of rows that are read a few at a time, from a file say: of w only
  /// the shape and format count. Throws what `read` throws.
  RowBlocks(const PackedMatrix& w, int64_t count, const ReadRows& read);

  /// The first matrix; see PackedMatrix::at() for others.
  const PackedMatrix& matrix() const {
    return matrix_;
  }

 private:
  std::shared_ptr<char> memory_;
  PackedMatrix matrix_;
};

} // namespace zmlx::cpu
