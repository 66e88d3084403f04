// SPDX-License-Identifier: MIT
// A copy of a quantised matrix with rows in blocks, in huge pages.
#pragma once

#include <cstdint>
#include <memory>

#include "zmlx/kernels/common/packed_matrix.h"

namespace zmlx::cpu {

/// Owns what a PackedMatrix in blocks looks at.
class RowBlocks {
 public:
  /// Whether matrices like w can lie in blocks.
  static bool fit(const PackedMatrix& w);

  /// Of `count` matrices in rows, one after the other, the first of them w. On
  /// the library's team.
  RowBlocks(const PackedMatrix& w, int64_t count);

  /// The first matrix; see PackedMatrix::at() for others.
  const PackedMatrix& matrix() const {
    return matrix_;
  }

 private:
  std::shared_ptr<char> memory_;
  PackedMatrix matrix_;
};

} // namespace zmlx::cpu
