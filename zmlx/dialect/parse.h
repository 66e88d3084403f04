// SPDX-License-Identifier: MIT
// From an author's text, in C or Metal syntax, to an expression.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/dialect/graph.h"
#include "zmlx/dialect/lexer.h"

namespace zmlx::dialect {

/// The type of a name as Metal spells it: float, half, bfloat, int, bool, and T
/// (float32). half and bfloat are Float, rounded where a value takes the type.
struct Spelling {
  Type type = Type::Float;
  std::optional<Op> rounding; // RoundHalf or RoundBfloat
};

/// Functions that an author defines: `float f(float x, int n) { ... }`.
class Functions {
 public:
  struct Parameter {
    std::string name;
    Spelling type;
  };
  struct Function {
    std::string name;
    Spelling result;
    std::vector<Parameter> parameters;
    size_t body; // token after the opening brace
  };
  struct Text {
    Source source;
    std::vector<Token> tokens;
    std::vector<Function> functions; // in the order of the text
  };

  /// No functions.
  Functions() = default;
  /// Reads definitions; bodies are checked when called. Throws
  /// std::invalid_argument on what is no function.
  explicit Functions(Source source);

  /// Empty when default-constructed.
  const std::shared_ptr<const Text>& text() const {
    return text_;
  }
  const Function* find(std::string_view name) const;

 private:
  std::shared_ptr<const Text> text_;
};

/// A name that an expression may use.
struct Binding {
  std::string name;
  Graph::Id value;
  bool assignable = false;
};

/// The Float value of an expression, or of statements that end in an
/// expression or in return: declarations, assignments, if, and for with bounds
/// known now (unrolled). Throws std::invalid_argument, pointing at the word.
Graph::Id parse(
    Graph& graph,
    const Source& source,
    std::span<const Binding> names,
    const Functions& helpers = {});

/// The value of the last function of `functions`, called with `args`.
Graph::Id parse_call(
    Graph& graph,
    const Functions& functions,
    std::span<const Graph::Id> args);

/// parse() of an expression whose names are its inputs, in that order.
FlatExpression parse_expression(
    const Source& source,
    const std::vector<std::string>& inputs,
    const Functions& helpers = {});

/// Throws std::invalid_argument unless the names are C identifiers, different
/// from one another, and no words of the language.
void check_names(std::string_view op, const std::vector<std::string>& names);

} // namespace zmlx::dialect
