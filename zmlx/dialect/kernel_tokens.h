// SPDX-License-Identifier: MIT
// Cuts kernel text into tokens that, put together again, give the same text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace zmlx::dialect {

enum class TokenKind : unsigned char {
  Word, // identifier or keyword
  Number,
  String, // string or character literal
  Symbol, // operator or punctuation; :: -> && and the like are one
  Directive, // a whole preprocessor line, continuations included
};

struct KernelToken {
  TokenKind kind;
  std::string text;
  std::string space; // white space and comments in front of it
  int line; // 1 for the first

  bool is(std::string_view word) const {
    return text == word;
  }
};

/// The tokens of a kernel and what follows the last of them.
struct KernelTokens {
  std::vector<KernelToken> tokens;
  std::string tail;

  /// The text again, as changed as the tokens are.
  std::string text() const;
};

/// Throws std::invalid_argument for a comment or string that does not end;
/// `op` names the kernel.
KernelTokens kernel_tokens(std::string_view text, std::string_view op);

/// The index of the bracket that closes the one at `open`, or the number of
/// tokens when there is none. The token at `open` is ( [ { or <.
size_t closing(const std::vector<KernelToken>& tokens, size_t open);

} // namespace zmlx::dialect
