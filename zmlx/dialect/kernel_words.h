// SPDX-License-Identifier: MIT
// What the words and symbols of the Metal dialect are, to its rewriting.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "zmlx/dialect/kernel_tokens.h"

namespace zmlx::dialect {

inline bool is_one_of(
    std::string_view word,
    std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

inline bool is_address_space(std::string_view word) {
  return is_one_of(
      word, {"device", "constant", "threadgroup", "thread", "ray_data"});
}

inline bool is_qualifier(std::string_view word) {
  return is_one_of(
      word, {"const", "volatile", "constexpr", "static", "inline"});
}

inline bool is_operand_keyword(std::string_view word) {
  return is_one_of(word, {"return", "case", "else", "do", "delete", "throw"});
}

inline bool is_assignment(std::string_view symbol) {
  return symbol == "=";
}

/// Whether a token can end an operand, so that & and [ after it are binary.
inline bool ends_operand(const KernelToken& token) {
  return token.kind == TokenKind::Number || token.kind == TokenKind::String ||
      (token.kind == TokenKind::Word && !is_operand_keyword(token.text)) ||
      token.is(")") || token.is("]");
}

} // namespace zmlx::dialect
