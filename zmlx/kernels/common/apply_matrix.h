// SPDX-License-Identifier: MIT
// Rows of an array through a matrix of any kind.
#pragma once

#include <vector>

#include "zmlx/kernels/common/multiply_rows.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/kernels/common/vector_math.h"

namespace zmlx::cpu {

/// The rows out.y = x W^T + bias on the library's team; bias null for none.
template <class Matrix>
void apply_matrix(
    const std::vector<const float*>& x,
    const Matrix& w,
    const mx::array* bias,
    RowsInOut& out) {
  multiply_rows(*thread_team(), w, x, out.y);
  if (bias) {
    std::vector<float> scratch;
    const float* added = RowReader(*bias).row(0, scratch);
    for (float* row : out.y) {
      axpy(1.0f, added, row, w.rows);
    }
  }
  out.store();
}

/// out = x W^T + bias on the library's team; evaluated arrays of any
/// floating-point type, bias null for none.
template <class Matrix>
void apply_matrix(
    const mx::array& x,
    const Matrix& w,
    const mx::array* bias,
    mx::array& out) {
  RowsInOut rows(x, out);
  apply_matrix(rows.x, w, bias, rows);
}

} // namespace zmlx::cpu
