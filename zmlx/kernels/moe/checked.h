// SPDX-License-Identifier: MIT
// Checks of the weights of a block or a layer.
#pragma once

#include "zmlx/kernels/moe/moe_mlp.h"

namespace zmlx::moe {

/// Checks a matrix, or a stack of `experts` of them (none: 0), and returns it
/// as kernels take it.
Projection checked(
    const char* op,
    const char* name,
    const Projection& projection,
    int experts,
    int rows,
    int cols);

/// The same for experts (a stack of each), or a layer's own projections, and x
/// that they are applied to.
ExpertArrays checked(
    const char* op,
    const mx::array& x,
    const ExpertArrays& weights,
    bool stacked);

/// The weight of a projection as an array, for its axes.
const mx::array& stored(const Projection& projection);

} // namespace zmlx::moe
