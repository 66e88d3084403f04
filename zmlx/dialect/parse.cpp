// SPDX-License-Identifier: MIT
#include "zmlx/dialect/parse.h"

#include <algorithm>
#include <cctype>

#include "zmlx/base/error.h"
#include "zmlx/dialect/parser.h"

namespace zmlx::dialect {
namespace {

// Reads the heads of function definitions and skips their bodies.
class FunctionReader {
 public:
  explicit FunctionReader(Functions::Text& text) : text_(text) {}

  void read() {
    while (peek().kind != Token::Kind::End) {
      if (accept("using")) { // using namespace metal;
        while (!accept(";")) {
          if (peek().kind == Token::Kind::End) {
            fail("';' must end the line");
          }
          ++at_;
        }
      } else if (!accept(";")) {
        read_function();
      }
    }
  }

 private:
  const Token& peek() const {
    return text_.tokens[at_];
  }
  bool accept(std::string_view word) {
    const bool here = peek().is(word);
    at_ += here;
    return here;
  }
  [[noreturn]] void fail(std::string_view what) const {
    fail_at(text_.source, peek(), what);
  }
  void expect(std::string_view word) {
    if (!accept(word)) {
      fail(concat('\'', word, "' must come here"));
    }
  }

  Spelling type() {
    const auto type = find_type(peek().text);
    if (!type) {
      fail("types must be float, half, bfloat, int, bool or T");
    }
    ++at_;
    return *type;
  }

  std::string new_name() {
    if (peek().kind != Token::Kind::Name || is_keyword(peek().text) ||
        find_type(peek().text)) {
      fail("a new name must come here");
    }
    return std::string(text_.tokens[at_++].text);
  }

  void read_function() {
    if (accept("template")) { // template <typename T>: T is float32
      expect("<");
      if (!accept("typename")) {
        expect("class");
      }
      expect("T");
      expect(">");
    }
    while (accept("inline") || accept("static") || accept("constexpr") ||
           accept("METAL_FUNC") || accept("const")) {
    }
    Functions::Function function{
        .name = {}, .result = type(), .parameters = {}, .body = 0};
    function.name = new_name();
    expect("(");
    if (!accept(")")) {
      do {
        accept("const");
        const Spelling spelling = type();
        accept("const");
        function.parameters.push_back({new_name(), spelling});
      } while (accept(","));
      expect(")");
    }
    std::vector<std::string> names;
    for (const auto& parameter : function.parameters) {
      names.push_back(parameter.name);
    }
    check_names(text_.source.op, names);
    expect("{");
    function.body = at_;
    for (int depth = 1; depth > 0; ++at_) {
      if (peek().kind == Token::Kind::End) {
        fail("'}' must close the function");
      }
      depth += peek().is("{") - peek().is("}");
    }
    text_.functions.push_back(std::move(function));
  }

  Functions::Text& text_;
  size_t at_ = 0;
};

} // namespace

Functions::Functions(Source source) {
  auto text = std::make_shared<Text>();
  text->source = std::move(source);
  text->tokens = tokenize(text->source);
  FunctionReader(*text).read();
  text_ = std::move(text);
}

const Functions::Function* Functions::find(std::string_view name) const {
  if (!text_) {
    return nullptr;
  }
  const auto found = std::ranges::find(text_->functions, name, &Function::name);
  return found == text_->functions.end() ? nullptr : &*found;
}

Graph::Id parse(
    Graph& graph,
    const Source& source,
    std::span<const Binding> names,
    const Functions& helpers) {
  const auto tokens = tokenize(source);
  ParseBudget budget;
  Parser parser(graph, source, tokens, helpers, budget);
  for (const auto& [name, value, assignable] : names) {
    parser.bind(name, {graph.type(value), {}}, value, !assignable);
  }
  return parser.parse_text();
}

Graph::Id parse_call(
    Graph& graph,
    const Functions& functions,
    std::span<const Graph::Id> args) {
  const auto& text = *functions.text();
  const auto& function = text.functions.back();
  ParseBudget budget;
  Parser parser(
      graph, text.source, text.tokens, functions, budget, function.body);
  for (size_t i = 0; i < function.parameters.size(); ++i) {
    const auto& [name, type] = function.parameters[i];
    auto value = graph.convert(args[i], type.type);
    value = type.rounding ? graph.make(*type.rounding, value) : value;
    parser.bind(name, type, value, false);
  }
  return graph.convert(
      parser.parse_function_body(function.result), Type::Float);
}

FlatExpression parse_expression(
    const Source& source,
    const std::vector<std::string>& inputs,
    const Functions& helpers) {
  check_names(source.op, inputs);
  Graph graph;
  std::vector<Binding> names;
  for (const auto& input : inputs) {
    names.push_back({input, graph.input(static_cast<int>(names.size()))});
  }
  const Graph::Id value = parse(graph, source, names, helpers);
  return graph.flatten({&value, 1}, static_cast<int>(inputs.size()));
}

void check_names(std::string_view op, const std::vector<std::string>& names) {
  for (size_t i = 0; i < names.size(); ++i) {
    const auto& name = names[i];
    const bool letters = !name.empty() &&
        !std::isdigit(static_cast<unsigned char>(name[0])) &&
        std::ranges::all_of(name, [](unsigned char c) {
          return c == '_' || (c < 128 && std::isalnum(c));
        });
    if (!letters || is_keyword(name) || find_type(name) ||
        is_foreign_type(name)) {
      invalid(op, "input names must be C identifiers, got '", name, "'.");
    }
    if (std::find(names.begin(), names.begin() + i, name) !=
        names.begin() + i) {
      invalid(op, "input names must differ, got '", name, "' twice.");
    }
  }
}

} // namespace zmlx::dialect
