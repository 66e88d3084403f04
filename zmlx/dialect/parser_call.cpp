// SPDX-License-Identifier: MIT
// Values that are named: variables, and calls of functions.
#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/dialect/builtins.h"
#include "zmlx/dialect/parser.h"

namespace zmlx::dialect {

using Id = Graph::Id;

Id Parser::parse_name() {
  if (accept("true") || accept("false")) {
    return graph_.constant_bool(tokens_[position_ - 1].is("true"));
  }
  if (accept("static_cast")) {
    expect("<");
    const Spelling type = parse_type();
    expect(">");
    expect("(");
    const Id value = parse_value();
    expect(")");
    return shaped(value, type);
  }
  if (at_type()) {
    const Spelling type = parse_type();
    expect("(");
    const Id value = parse_value();
    expect(")");
    return shaped(value, type);
  }
  while ((peek().is("metal") || peek().is("fast") || peek().is("precise") ||
          peek().is("std")) &&
         peek(1).is("::")) {
    position_ += 2;
  }
  const Token name = peek();
  if (name.kind != Token::Kind::Name) {
    fail(name, "a name must come here");
  }
  ++position_;
  if (peek().is("(")) {
    return parse_call(name);
  }
  if (const auto* variable = find(name.text)) {
    return variable->value;
  }
  if (const auto constant = find_constant(name.text)) {
    return graph_.constant(*constant);
  }
  unknown(name, false);
}

std::vector<Id> Parser::parse_arguments() {
  std::vector<Id> args;
  expect("(");
  if (accept(")")) {
    return args;
  }
  do {
    args.push_back(parse_value());
  } while (accept(","));
  expect(")");
  return args;
}

Id Parser::parse_call(const Token& name) {
  spend(name);
  const auto* helper = helpers_.find(name.text);
  const auto* builtin = find_builtin(name.text);
  const bool is_select = name.is("select");
  if (!helper && !builtin && !is_select) {
    unknown(name, true);
  }
  auto args = parse_arguments();
  const size_t wanted = helper ? helper->parameters.size()
      : is_select              ? 3
                               : static_cast<size_t>(builtin->num_args);
  if (args.size() != wanted) {
    fail(
        name,
        concat(
            name.text,
            "() must have ",
            wanted,
            wanted == 1 ? " argument" : " arguments",
            " but has ",
            args.size()));
  }
  if (helper) {
    return call_helper(*helper, name, args);
  }
  if (is_select) { // Metal's order: the second one where the condition holds.
    if (graph_.type(args[0]) != graph_.type(args[1])) {
      common(args[0], args[1]);
    }
    return graph_.select(graph_.convert(args[2], Type::Bool), args[1], args[0]);
  }
  return call(graph_, *builtin, args);
}

Id Parser::call_helper(
    const Functions::Function& function,
    const Token& name,
    const std::vector<Id>& args) {
  const Nested nested(*this, name);
  const auto& text = *helpers_.text();
  Parser body(
      graph_, text.source, text.tokens, helpers_, budget_, function.body);
  for (size_t i = 0; i < args.size(); ++i) {
    const auto& parameter = function.parameters[i];
    body.bind(
        parameter.name, parameter.type, shaped(args[i], parameter.type), false);
  }
  return body.parse_function_body(function.result);
}

void Parser::unknown(const Token& name, bool function) const {
  if (is_keyword(name.text)) {
    fail(name, "a value must come here");
  }
  auto candidates = builtin_names();
  candidates.insert(
      candidates.end(),
      {"select", "kk_sigmoid", "kk_silu", "kk_gelu", "kk_gelu_tanh"});
  std::vector<std::string> inputs;
  for (const auto& variable : state_.variables) {
    candidates.push_back(variable.name);
    inputs.push_back(variable.name);
  }
  if (helpers_.text()) {
    for (const auto& helper : helpers_.text()->functions) {
      candidates.push_back(helper.name);
    }
  }
  std::string hint = // every letter is near every other
      name.text.size() > 1 ? did_you_mean(name.text, candidates) : "";
  if (hint.empty() && !function && !inputs.empty()) {
    hint = concat(" Names here: ", join(inputs, ", "), '.');
  }
  fail(
      name,
      function ? "functions must be Metal's, kk_ helpers or defined in header"
               : "names must be inputs, locals or constants",
      hint);
}

} // namespace zmlx::dialect
