// SPDX-License-Identifier: MIT
#include "zmlx/dialect/lexer.h"

#include <algorithm>
#include <cctype>

#include "zmlx/base/error.h"

namespace zmlx::dialect {
namespace {

// Longest first.
constexpr std::string_view kSymbols[] = {
    "<<=", ">>=", "::", "==", "!=", "<=", ">=", "&&", "||", "<<", ">>",
    "+=",  "-=",  "*=", "/=", "%=", "&=", "|=", "^=", "++", "--"};

bool starts_name(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_';
}

bool is_digit(char c) {
  return std::isdigit(static_cast<unsigned char>(c));
}

bool in_name(char c) {
  return starts_name(c) || is_digit(c);
}

// The end of the comment, line of the preprocessor or space at `at`, or `at`.
size_t skip_blank(std::string_view text, size_t at) {
  if (std::isspace(static_cast<unsigned char>(text[at]))) {
    return at + 1;
  }
  const auto here = text.substr(at);
  const bool line_start =
      text.substr(0, at).find_last_not_of(" \t") == std::string_view::npos ||
      text[text.substr(0, at).find_last_not_of(" \t")] == '\n';
  if (here.starts_with("//") || (here[0] == '#' && line_start)) {
    return std::min(text.find('\n', at), text.size());
  }
  if (here.starts_with("/*")) {
    const size_t end = text.find("*/", at + 2);
    return end == std::string_view::npos ? text.size() : end + 2;
  }
  return at;
}

// A number takes letters, digits, points, and a sign after its exponent.
size_t number_end(std::string_view text, size_t at) {
  const bool hex =
      text.substr(at).starts_with("0x") || text.substr(at).starts_with("0X");
  size_t end = at;
  while (end < text.size()) {
    const char c = text[end];
    const char before = end > at ? text[end - 1] : ' ';
    const bool exponent =
        hex ? before == 'p' || before == 'P' : before == 'e' || before == 'E';
    if (!in_name(c) && c != '.' && !((c == '+' || c == '-') && exponent)) {
      break;
    }
    ++end;
  }
  return end;
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += std::isprint(static_cast<unsigned char>(c)) ? c : '?';
  }
  return out;
}

} // namespace

std::vector<Token> tokenize(const Source& source) {
  const std::string_view text = source.text;
  std::vector<Token> tokens;
  size_t at = 0;
  while (at < text.size()) {
    if (const size_t next = skip_blank(text, at); next != at) {
      at = next;
      continue;
    }
    Token token{Token::Kind::Symbol, at, text.substr(at, 1)};
    size_t end = at + 1;
    if (starts_name(text[at])) {
      token.kind = Token::Kind::Name;
      end = static_cast<size_t>(
          std::find_if_not(text.begin() + at, text.end(), in_name) -
          text.begin());
    } else if (
        is_digit(text[at]) ||
        (text[at] == '.' && at + 1 < text.size() && is_digit(text[at + 1]))) {
      token.kind = Token::Kind::Number;
      end = number_end(text, at);
    } else {
      for (const auto symbol : kSymbols) {
        if (text.substr(at).starts_with(symbol)) {
          end = at + symbol.size();
          break;
        }
      }
    }
    token.text = text.substr(at, end - at);
    tokens.push_back(token);
    at = end;
  }
  tokens.push_back({Token::Kind::End, text.size(), {}});
  return tokens;
}

void fail_at(
    const Source& source,
    const Token& token,
    std::string_view what,
    std::string_view hint) {
  const std::string_view text = source.text;
  const size_t at = std::min(token.begin, text.size());
  const size_t before =
      at == 0 ? std::string_view::npos : text.rfind('\n', at - 1);
  const size_t start = before == std::string_view::npos ? 0 : before + 1;
  const size_t end = std::min(text.find('\n', start), text.size());
  const auto line = 1 + std::count(text.begin(), text.begin() + start, '\n');
  const std::string where = line > 1 || end < text.size()
      ? concat("line ", line, ", column ", at - start + 1)
      : concat("column ", at + 1);
  const std::string got = token.kind == Token::Kind::End
      ? "the end of the text"
      : concat('\'', printable(token.text.substr(0, 40)), '\'');
  const size_t width = std::min(
      std::max<size_t>(token.text.size(), 1), std::max<size_t>(end - at, 1));
  invalid(
      source.op,
      what,
      ", got ",
      got,
      " at ",
      where,
      '.',
      hint,
      "\n  ",
      printable(text.substr(start, end - start)),
      "\n  ",
      std::string(at - start, ' '),
      '^',
      std::string(width - 1, '~'));
}

} // namespace zmlx::dialect
