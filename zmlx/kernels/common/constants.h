// SPDX-License-Identifier: MIT
// Numbers that kernels read.
#pragma once

#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// The numbers as a float32 array, the same one for the same numbers: made anew
/// for each call of a kernel it would cost an allocation and a move to the
/// device.
mx::array constants(const std::vector<float>& numbers);

} // namespace zmlx
