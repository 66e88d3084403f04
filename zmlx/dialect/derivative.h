// SPDX-License-Identifier: MIT
// Symbolic derivatives.
#pragma once

#include <span>
#include <vector>

#include "zmlx/dialect/graph.h"

namespace zmlx::dialect {

/// d value / d (the node `variable`) of each value, or -1 where it is zero
/// everywhere.
///
/// As MLX has it: at a tie min and max pass all to their second operand, abs
/// and sign have 0 at 0, rounding and conversions to int have 0, rounding to
/// half or bfloat has 1, comparisons and conditions are held fixed, and pow has
/// 0 for the exponent at base 0. Only the chosen side of ?: counts, so that a
/// NaN on the other side does not spread.
std::vector<Graph::Id> derivatives(
    Graph& graph,
    std::span<const Graph::Id> values,
    Graph::Id variable);

/// The sum over all outputs of input[num_inputs + output] * d output / d input
/// for each input in `inputs`: vector-Jacobian products. The result takes the
/// inputs of `expression`, then one cotangent an output.
FlatExpression vjp_of(
    const FlatExpression& expression,
    std::span<const int> inputs);

/// For each output the sum over `inputs` of its derivative times a tangent:
/// the result takes the inputs of `expression`, then one tangent for each of
/// `inputs`.
FlatExpression jvp_of(
    const FlatExpression& expression,
    std::span<const int> inputs);

} // namespace zmlx::dialect
