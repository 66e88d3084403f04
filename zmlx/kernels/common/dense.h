// SPDX-License-Identifier: MIT
// Dense matrix times vector on the CPU, in float32 from any stored type.
#pragma once

#include <cstdint>

#include "zmlx/kernels/common/packed_matrix.h"

namespace zmlx::cpu {

/// y[row - begin] = W[row] . x for rows [begin, end); x has W.cols floats.
/// Bitwise the same however the rows are split.
void matvec(
    const DenseMatrix& w,
    const float* x,
    int64_t begin,
    int64_t end,
    float* y);

/// out[col] = the values of a row, cols floats.
void copy_row(const DenseMatrix& w, int64_t row, float* out);

} // namespace zmlx::cpu
