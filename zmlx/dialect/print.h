// SPDX-License-Identifier: MIT
// From an expression back to text.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/dialect/expression.h"

namespace zmlx::dialect {

/// Statements in Metal that compute an expression: `const float t3 = ...;` for
/// each value that is used more than once, then `results[i] = ...;` for output
/// i. inputs and results are texts to read from and to assign to. They call
/// functions of expression_prelude(). `narrow`: the results are rounded to 16
/// bits, so that functions may be wrong by 1e-5 of their value.
std::string print_statements(
    const FlatExpression& expression,
    std::span<const std::string> inputs,
    std::span<const std::string> results,
    bool narrow = false);

/// The expression as a body that parse() reads back to the same program:
/// declarations, then `return ...;`, or the value alone. One output.
std::string print(
    const FlatExpression& expression,
    std::span<const std::string> inputs);

/// The functions that printed statements call and Metal does not have, or not
/// with the edges that Op asks for.
std::string_view expression_prelude();

} // namespace zmlx::dialect
