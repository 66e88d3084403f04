// SPDX-License-Identifier: MIT
// The functions and constants that an expression may name.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/dialect/graph.h"

namespace zmlx::dialect {

/// A function of Metal's library, or one of the kk_ helpers.
struct Builtin {
  std::string_view name;
  int num_args;
  /// Whether it works on Int when no operand is Float; else all become Float.
  bool takes_int;
  /// Operands are Float, or all Int.
  Graph::Id (*build)(Graph& graph, const Graph::Id* args);
};

/// The function of a name as written ("exp", "expf", "kk_silu"), or null.
const Builtin* find_builtin(std::string_view name);

/// The value of a named constant (M_PI_F, INFINITY, ...).
std::optional<float> find_constant(std::string_view name);

/// Every function and constant, for suggestions.
std::vector<std::string> builtin_names();

/// The node of a call, operands converted.
Graph::Id
call(Graph& graph, const Builtin& builtin, std::span<const Graph::Id> args);

} // namespace zmlx::dialect
