// SPDX-License-Identifier: MIT
// Names for what kernels take and give.
#pragma once

#include <functional>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

using Arrays = std::vector<mx::array>;
using ArrayFunction = std::function<Arrays(const Arrays& inputs)>;

/// Standard normal values: the same on every machine for the same seed.
mx::array normal_values(const mx::Shape& shape, mx::Dtype dtype, uint64_t seed);

/// `count` such arrays for every shape and type, evaluated. Throws
/// std::invalid_argument in the name of op unless there is one of each.
std::vector<Arrays> normal_inputs(
    const char* op,
    const std::vector<mx::Shape>& shapes,
    const std::vector<mx::Dtype>& dtypes,
    int count,
    uint64_t seed);

} // namespace zmlx
