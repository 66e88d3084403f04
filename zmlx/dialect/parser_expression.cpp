// SPDX-License-Identifier: MIT
// Values: operators, casts, literals.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "zmlx/base/error.h"
#include "zmlx/dialect/parser.h"

namespace zmlx::dialect {
namespace {

using Id = Graph::Id;

// Binary operators, each level binding tighter than the one before.
constexpr std::array<std::array<std::string_view, 4>, 10> kLevels = {{
    {"||"},
    {"&&"},
    {"|"},
    {"^"},
    {"&"},
    {"==", "!="},
    {"<", "<=", ">", ">="},
    {"<<", ">>"},
    {"+", "-"},
    {"*", "/", "%"},
}};

bool in_level(const Token& token, int level) {
  for (const auto symbol : kLevels[level]) {
    if (!symbol.empty() && token.is(symbol)) {
      return true;
    }
  }
  return false;
}

struct TypeName {
  std::string_view name;
  Spelling spelling;
};
constexpr TypeName kTypes[] = {
    {"float", {Type::Float, {}}},
    {"T", {Type::Float, {}}},
    {"half", {Type::Float, Op::RoundHalf}},
    {"float16_t", {Type::Float, Op::RoundHalf}},
    {"bfloat", {Type::Float, Op::RoundBfloat}},
    {"bfloat16_t", {Type::Float, Op::RoundBfloat}},
    {"int", {Type::Int, {}}},
    {"int32_t", {Type::Int, {}}},
    {"bool", {Type::Bool, {}}},
};
constexpr std::string_view kForeignTypes[] = {
    "double", "uint",     "uint32_t", "unsigned", "long",       "int64_t",
    "ulong",  "uint64_t", "short",    "int16_t",  "ushort",     "uint16_t",
    "char",   "int8_t",   "uchar",    "uint8_t",  "size_t",     "void",
    "float2", "float3",   "float4",   "half2",    "half4",      "int2",
    "int4",   "uint2",    "uint3",    "uint4",    "complex64_t"};
constexpr std::string_view kKeywords[] = {
    "auto",     "const",  "constexpr", "if",         "else",     "for",
    "while",    "do",     "switch",    "case",       "break",    "return",
    "true",     "false",  "goto",      "static",     "inline",   "struct",
    "class",    "thread", "device",    "constant",   "continue", "template",
    "typename", "using",  "namespace", "static_cast"};

} // namespace

std::optional<Spelling> find_type(std::string_view name) {
  for (const auto& type : kTypes) {
    if (type.name == name) {
      return type.spelling;
    }
  }
  return std::nullopt;
}

bool is_foreign_type(std::string_view name) {
  return std::ranges::find(kForeignTypes, name) != std::end(kForeignTypes);
}

bool is_keyword(std::string_view name) {
  return std::ranges::find(kKeywords, name) != std::end(kKeywords);
}

Parser::Nested::Nested(const Parser& parser, const Token& token)
    : budget_(parser.budget_) {
  if (budget_.depth >= kMaxDepth) {
    parser.fail(token, concat("nesting must be at most ", kMaxDepth, " deep"));
  }
  ++budget_.depth;
}

const Token& Parser::peek(size_t ahead) const {
  return tokens_[std::min(position_ + ahead, tokens_.size() - 1)];
}

bool Parser::accept(std::string_view symbol) {
  if (!peek().is(symbol)) {
    return false;
  }
  ++position_;
  return true;
}

void Parser::expect(std::string_view symbol) {
  if (!accept(symbol)) {
    fail(peek(), concat('\'', symbol, "' must come here"));
  }
}

void Parser::fail(
    const Token& token,
    std::string_view what,
    std::string_view hint) const {
  fail_at(source_, token, what, hint);
}

void Parser::spend(const Token& token) {
  if (++budget_.steps > kMaxSteps || graph_.size() > kMaxNodes) {
    fail(
        token,
        concat(
            "an expression must take at most ",
            kMaxSteps,
            " steps when unrolled"));
  }
}

Id Parser::shaped(Id value, Spelling type) {
  value = graph_.convert(value, type.type);
  return type.rounding ? graph_.make(*type.rounding, value) : value;
}

// Brings both to the type in which C computes: Float, else Int.
void Parser::common(Id& a, Id& b) {
  const bool is_float =
      graph_.type(a) == Type::Float || graph_.type(b) == Type::Float;
  const Type type = is_float ? Type::Float : Type::Int;
  a = graph_.convert(a, type);
  b = graph_.convert(b, type);
}

Id Parser::parse_value() {
  const Nested nested(*this, peek());
  const Id condition = parse_binary(0);
  if (!accept("?")) {
    return condition;
  }
  Id yes = parse_value();
  expect(":");
  Id no = parse_value();
  if (graph_.type(yes) != graph_.type(no)) {
    common(yes, no);
  }
  return graph_.select(graph_.convert(condition, Type::Bool), yes, no);
}

Id Parser::parse_condition() {
  return graph_.convert(parse_value(), Type::Bool);
}

Id Parser::parse_binary(int level) {
  if (level == static_cast<int>(kLevels.size())) {
    return parse_unary();
  }
  Id left = parse_binary(level + 1);
  while (in_level(peek(), level)) {
    const Token op = peek();
    ++position_;
    const Id right = parse_binary(level + 1);
    left = binary(op, left, right);
  }
  return left;
}

Id Parser::binary(const Token& op, Id a, Id b) {
  spend(op);
  const std::string_view s = op.text;
  if (s == "&&" || s == "||") {
    return graph_.make(
        s == "&&" ? Op::And : Op::Or,
        graph_.convert(a, Type::Bool),
        graph_.convert(b, Type::Bool));
  }
  const bool bits =
      s == "&" || s == "|" || s == "^" || s == "<<" || s == ">>" || s == "%";
  const bool logic = s == "&" || s == "|" || s == "^";
  if (!logic || graph_.type(a) != Type::Bool || graph_.type(b) != Type::Bool) {
    common(a, b);
  }
  if (bits && graph_.type(a) == Type::Float) {
    fail(
        op,
        "both operands must be int",
        s == "%" ? " Try: fmod(a, b)." : " Try: int(...).");
  }
  if (s == ">" || s == ">=") {
    return graph_.make(s == ">" ? Op::Less : Op::LessEqual, b, a);
  }
  const Op made = s == "+" ? Op::Add
      : s == "-"           ? Op::Sub
      : s == "*"           ? Op::Mul
      : s == "/"           ? Op::Div
      : s == "%"           ? Op::Rem
      : s == "&"           ? Op::And
      : s == "|"           ? Op::Or
      : s == "^"           ? Op::Xor
      : s == "<<"          ? Op::Shl
      : s == ">>"          ? Op::Shr
      : s == "<"           ? Op::Less
      : s == "<="          ? Op::LessEqual
      : s == "=="          ? Op::Equal
                           : Op::NotEqual;
  return graph_.make(made, a, b);
}

Id Parser::parse_unary() {
  const Nested nested(*this, peek());
  const Token op = peek();
  if (accept("!")) {
    return graph_.make(Op::Not, graph_.convert(parse_unary(), Type::Bool));
  }
  if (accept("-") || accept("+")) {
    Id value = parse_unary();
    if (graph_.type(value) == Type::Bool) {
      value = graph_.convert(value, Type::Int);
    }
    return op.is("-") ? graph_.neg(value) : value;
  }
  if (accept("~")) {
    const Id value = parse_unary();
    if (graph_.type(value) == Type::Float) {
      fail(op, "the operand must be int", " Try: int(...).");
    }
    return graph_.make(Op::Not, graph_.convert(value, Type::Int));
  }
  return parse_primary();
}

Id Parser::parse_primary() {
  const Token token = peek();
  if (accept("(")) {
    if (at_type() && peek(1).is(")")) {
      const Spelling type = parse_type();
      expect(")");
      return shaped(parse_unary(), type);
    }
    const Id value = parse_value();
    expect(")");
    return value;
  }
  if (token.kind == Token::Kind::Number) {
    return parse_number();
  }
  if (token.kind == Token::Kind::Name) {
    return parse_name();
  }
  fail(token, "a value must come here");
}

Id Parser::parse_number() {
  const Token token = peek();
  ++position_;
  std::string_view digits = token.text;
  const bool hex = digits.starts_with("0x") || digits.starts_with("0X");
  digits.remove_prefix(hex ? 2 : 0);
  const bool is_float =
      digits.find_first_of(hex ? ".pP" : ".eE") != std::string_view::npos;
  float value = 0;
  int64_t whole = 0;
  std::from_chars_result end{};
  const auto* last = digits.data() + digits.size();
  if (is_float) {
    const auto format =
        hex ? std::chars_format::hex : std::chars_format::general;
    end = std::from_chars(digits.data(), last, value, format);
    double wide = 0;
    if (end.ec == std::errc::result_out_of_range) {
      end = std::from_chars(digits.data(), last, wide, format);
      value = static_cast<float>(wide);
    }
    if (end.ec == std::errc::result_out_of_range || std::isinf(value)) {
      fail(token, "a literal must fit a float");
    }
  } else {
    end = std::from_chars(digits.data(), last, whole, hex ? 16 : 10);
  }
  if (end.ec == std::errc::invalid_argument) {
    fail(token, "a number must have digits");
  }
  const std::string_view suffix(end.ptr, static_cast<size_t>(last - end.ptr));
  const bool half = suffix == "h" || suffix == "H";
  if (is_float ? !(suffix.empty() || half || suffix == "f" || suffix == "F")
               : !(suffix.empty() || suffix == "u" || suffix == "U" ||
                   suffix == "f" || suffix == "F" || half)) {
    fail(token, "a literal must be a number, with f, h or u behind or nothing");
  }
  if (is_float || suffix == "f" || suffix == "F" || half) {
    const Id id = graph_.constant(is_float ? value : static_cast<float>(whole));
    return half ? graph_.make(Op::RoundHalf, id) : id;
  }
  const int64_t limit = std::numeric_limits<int32_t>::max();
  // 0xffffffff is -1, as after a conversion to int.
  if (end.ec != std::errc() || whole > (hex ? 2 * limit + 1 : limit)) {
    fail(token, "an int literal must fit 32 bits", " Try: a point behind it.");
  }
  return graph_.constant_int(
      static_cast<int32_t>(static_cast<uint32_t>(whole)));
}

bool Parser::at_type() const {
  return peek().kind == Token::Kind::Name &&
      (find_type(peek().text) || is_foreign_type(peek().text));
}

Spelling Parser::parse_type() {
  const Token token = peek();
  const auto type = find_type(token.text);
  if (!type) {
    fail(token, "types must be float, half, bfloat, int, bool or T");
  }
  ++position_;
  return *type;
}

} // namespace zmlx::dialect
