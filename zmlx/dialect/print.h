// SPDX-License-Identifier: MIT
// From an expression back to text.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/dialect/expression.h"

namespace zmlx::dialect {

enum class Target { Metal, Cuda };

/// Statements that compute an expression: `const float t3 = ...;` for each
/// value that is used more than once, then `result[i] = ...;` for output i.
/// inputs and results are texts to read from and to assign to; locals start
/// with `prefix`. The text needs expression_prelude() of the target.
std::string print_statements(
    const FlatExpression& expression,
    std::span<const std::string> inputs,
    std::span<const std::string> results,
    Target target,
    std::string_view prefix = "t");

/// The expression as a body that parse() reads back to the same program:
/// declarations, then `return ...;`, or the value alone. One output.
std::string print(
    const FlatExpression& expression,
    std::span<const std::string> inputs);

/// The functions that printed text calls and the target has not.
std::string_view expression_prelude(Target target);

} // namespace zmlx::dialect
