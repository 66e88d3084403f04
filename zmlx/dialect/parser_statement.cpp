// SPDX-License-Identifier: MIT
// Statements: what they assign becomes nodes; if becomes Select, for unrolls.
#include <algorithm>
#include <utility>

#include "zmlx/base/error.h"
#include "zmlx/dialect/parser.h"

namespace zmlx::dialect {
namespace {

using Id = Graph::Id;

constexpr std::string_view kAssignments[] =
    {"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="};

bool is_assignment(const Token& token) {
  return std::ranges::any_of(
      kAssignments, [&](auto symbol) { return token.is(symbol); });
}

bool is_step(const Token& token) {
  return token.is("++") || token.is("--");
}

} // namespace

void Parser::bind(std::string name, Spelling type, Id value, bool constant) {
  state_.variables.push_back({std::move(name), type, value, constant});
}

// The innermost of a name; a local may hide an input.
Parser::Variable* Parser::find(std::string_view name) {
  auto& variables = state_.variables;
  const auto found = std::find_if(
      variables.rbegin(), variables.rend(), [&](const Variable& variable) {
        return variable.name == name;
      });
  return found == variables.rend() ? nullptr : &*found;
}

void Parser::start() {
  state_.returned = graph_.constant_bool(false);
}

Id Parser::parse_text() {
  start();
  const auto end = [&] { return peek().kind == Token::Kind::End; };
  while (!end()) {
    const Token first = peek();
    const auto value = parse_statement();
    if (!value) {
      continue;
    }
    if (!end()) {
      const bool new_statement = tokens_[position_ - 1].is(";");
      fail(
          new_statement ? first : peek(),
          new_statement
              ? "a value must be used or be the last statement"
              : "an operator or the end of the statement must come here");
    }
    return_value(*value);
  }
  if (!graph_.is_constant(state_.returned) ||
      graph_.at(state_.returned).bits == 0) {
    fail(peek(), "every path must end in a value or return");
  }
  return graph_.convert(state_.result, Type::Float);
}

Id Parser::parse_function_body(Spelling result) {
  start();
  while (!peek().is("}")) {
    const Token first = peek();
    if (first.kind == Token::Kind::End) {
      fail(first, "'}' must close the function");
    }
    if (parse_statement()) {
      fail(first, "a statement must assign or return");
    }
  }
  if (!graph_.is_constant(state_.returned) ||
      graph_.at(state_.returned).bits == 0) {
    fail(peek(), "every path of a function must return");
  }
  return shaped(state_.result, result);
}

// The value, where the statement is an expression.
std::optional<Id> Parser::parse_statement() {
  const Token token = peek();
  const Nested nested(*this, token);
  spend(token);
  if (accept(";")) {
    return std::nullopt;
  }
  if (token.is("{")) {
    parse_block();
  } else if (token.is("if")) {
    parse_if();
  } else if (token.is("for")) {
    parse_for();
  } else if (token.is("return")) {
    parse_return();
  } else if (
      token.is("while") || token.is("do") || token.is("switch") ||
      token.is("break") || token.is("continue") || token.is("goto")) {
    fail(token, "statements must be if, for, return or assignments");
  } else if (
      token.is("const") || token.is("constexpr") || token.is("auto") ||
      (at_type() && peek(1).kind == Token::Kind::Name)) {
    parse_declaration();
  } else if (at_assignment()) {
    parse_assignment();
    expect(";");
  } else {
    const Id value = parse_value();
    accept(";");
    return value;
  }
  return std::nullopt;
}

void Parser::parse_block() {
  const size_t outer = state_.variables.size();
  expect("{");
  while (!accept("}")) {
    const Token first = peek();
    if (first.kind == Token::Kind::End) {
      fail(first, "'}' must close the block");
    }
    if (parse_statement()) {
      fail(first, "a statement must assign or return");
    }
  }
  state_.variables.resize(outer, {{}, {}, -1, false});
}

std::string Parser::parse_new_name() {
  const Token name = peek();
  if (name.kind != Token::Kind::Name || is_keyword(name.text) || at_type()) {
    fail(name, "a new name must come here");
  }
  ++position_;
  return std::string(name.text);
}

void Parser::parse_declaration() {
  bool constant = false;
  while (peek().is("const") || peek().is("constexpr")) {
    constant = true;
    ++position_;
  }
  std::optional<Spelling> type;
  if (!accept("auto")) {
    type = parse_type();
  }
  constant |= accept("const");
  do {
    std::string name = parse_new_name();
    if (!peek().is("=") && !peek().is("(") && !peek().is("{")) {
      fail(peek(), "a declaration must give a value");
    }
    const bool round = accept("("), brace = !round && accept("{");
    if (!round && !brace) {
      expect("=");
    }
    const Id value = parse_value();
    if (round || brace) {
      expect(round ? ")" : "}");
    }
    const Spelling as = type.value_or(Spelling{graph_.type(value), {}});
    bind(std::move(name), as, shaped(value, as), constant);
  } while (accept(","));
  expect(";");
}

void Parser::parse_if() {
  expect("if");
  expect("(");
  const Id condition = parse_condition();
  expect(")");
  const State before = state_;
  const auto branch = [&] {
    const Token first = peek();
    if (parse_statement()) {
      fail(first, "a statement must assign or return");
    }
    state_.variables.resize(before.variables.size(), {{}, {}, -1, false});
  };
  branch();
  State yes = std::exchange(state_, before);
  if (accept("else")) {
    branch();
  }
  merge(condition, yes, State(state_));
}

void Parser::merge(Id condition, const State& yes, const State& no) {
  for (size_t i = 0; i < state_.variables.size(); ++i) {
    state_.variables[i].value =
        graph_.select(condition, yes.variables[i].value, no.variables[i].value);
  }
  state_.returned = graph_.select(condition, yes.returned, no.returned);
  if (yes.result < 0 || no.result < 0) {
    state_.result = std::max(yes.result, no.result);
    return;
  }
  Id a = yes.result, b = no.result;
  if (graph_.type(a) != graph_.type(b)) {
    common(a, b);
  }
  state_.result = graph_.select(condition, a, b);
}

void Parser::return_value(Id value) {
  if (state_.result < 0) {
    state_.result = value;
  } else {
    Id earlier = state_.result;
    if (graph_.type(earlier) != graph_.type(value)) {
      common(earlier, value);
    }
    state_.result = graph_.select(state_.returned, earlier, value);
  }
  state_.returned = graph_.constant_bool(true);
}

void Parser::parse_return() {
  expect("return");
  const Id value = parse_value();
  if (peek().kind != Token::Kind::End) {
    expect(";");
  }
  return_value(value);
}

bool Parser::at_assignment() const {
  return is_step(peek()) ||
      (peek().kind == Token::Kind::Name &&
       (is_assignment(peek(1)) || is_step(peek(1))));
}

void Parser::parse_assignment() {
  Token op = peek();
  const bool prefix = is_step(op);
  position_ += prefix;
  const Token name = peek();
  ++position_;
  if (!prefix) {
    op = peek();
    ++position_;
  }
  if (name.kind != Token::Kind::Name) {
    fail(name, "a name must come here");
  }
  if (!find(name.text)) {
    unknown(name, false);
  }
  if (find(name.text)->constant) {
    fail(name, "what is assigned must be a local variable");
  }
  Id value = is_step(op) ? graph_.constant_int(1) : parse_value();
  auto* variable = find(name.text);
  if (!op.is("=")) {
    Token plain = op;
    plain.text.remove_suffix(1); // "+=" and "++" compute with "+"
    value = binary(plain, variable->value, value);
  }
  variable->value = shaped(value, variable->type);
}

// Past one statement that is never run: what a loop of no rounds repeats.
void Parser::skip_statement() {
  const State before = state_;
  const Token first = peek();
  if (parse_statement()) {
    fail(first, "a statement must assign or return");
  }
  state_ = before;
}

void Parser::parse_for() {
  expect("for");
  expect("(");
  const size_t outer = state_.variables.size();
  if (!accept(";")) {
    const Token first = peek();
    if (parse_statement()) {
      fail(first, "a statement must assign or return");
    }
  }
  const size_t condition_at = position_;
  for (bool again = true; again;) {
    position_ = condition_at;
    const Token token = peek();
    spend(token);
    const Id condition = parse_condition();
    if (!graph_.is_constant(condition)) {
      fail(token, "loop bounds must be known when the expression is built");
    }
    again = graph_.at(condition).bits != 0;
    expect(";");
    const size_t step_at = position_;
    const State before_step = state_;
    if (!peek().is(")")) {
      parse_assignment();
    }
    expect(")");
    state_ = before_step;
    if (!again) {
      skip_statement();
      break;
    }
    const Token first = peek();
    if (parse_statement()) {
      fail(first, "a statement must assign or return");
    }
    const size_t after = position_;
    position_ = step_at;
    if (!peek().is(")")) {
      parse_assignment();
    }
    position_ = after;
  }
  state_.variables.resize(outer, {{}, {}, -1, false});
}

} // namespace zmlx::dialect
