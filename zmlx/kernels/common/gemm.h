// SPDX-License-Identifier: MIT
// Quantised matrix times many vectors on the CPU: each tile of the matrix is
// dequantised once and multiplied in float32.
#pragma once

#include <cstdint>

#include "zmlx/kernels/common/packed_matrix.h"

namespace zmlx::cpu {

/// y[i][row - begin] = W[row] . x[i] for i < count and rows [begin, end). x[i]
/// has W.cols floats. Bitwise the same however rows and vectors are split.
void gemm(
    const PackedMatrix& w,
    int64_t begin,
    int64_t end,
    const float* const* x,
    int64_t count,
    float* const* y);

/// From this many vectors on gemm() is faster than matvec() on each.
inline constexpr int64_t kGemmVectors = 8;

} // namespace zmlx::cpu
