// SPDX-License-Identifier: MIT
// A matrix times any number of vectors, on every thread.
#pragma once

#include <vector>

#include "zmlx/kernels/common/packed_matrix.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::cpu {

/// y[i] = W . x[i]; x[i] has W.cols floats, y[i] W.rows. Few vectors go through
/// matvec(), many through gemm(). Bitwise the same for any number of threads.
void multiply_rows(
    ThreadTeam& team,
    const PackedMatrix& w,
    const std::vector<const float*>& x,
    const std::vector<float*>& y);
void multiply_rows(
    ThreadTeam& team,
    const DenseMatrix& w,
    const std::vector<const float*>& x,
    const std::vector<float*>& y);

} // namespace zmlx::cpu
