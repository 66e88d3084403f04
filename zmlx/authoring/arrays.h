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

} // namespace zmlx
