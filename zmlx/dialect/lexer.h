// SPDX-License-Identifier: MIT
// Words of an expression, and the error that points at one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace zmlx::dialect {

/// A text of the author's, and the operation that reports its errors.
struct Source {
  std::string op; // "elementwise"
  std::string text;
};

struct Token {
  enum class Kind { End, Number, Name, Symbol };
  Kind kind = Kind::End;
  size_t begin = 0;
  std::string_view text; // into the source

  bool is(std::string_view symbol) const {
    return kind != Kind::End && text == symbol;
  }
};

/// Splits a source into words, ended by one of kind End; comments and lines
/// that start with # are skipped. The tokens point into `source`.
std::vector<Token> tokenize(const Source& source);

/// Throws std::invalid_argument("[op] <what>, got '<token>' at line L, column
/// C.<hint>") and, below, the author's line with a caret.
[[noreturn]] void fail_at(
    const Source& source,
    const Token& token,
    std::string_view what,
    std::string_view hint = "");

} // namespace zmlx::dialect
