// SPDX-License-Identifier: MIT
#include "zmlx/dialect/kernel_tokens.h"

#include <algorithm>
#include <array>

#include "zmlx/base/error.h"

namespace zmlx::dialect {
namespace {

bool is_word_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Longest first. No >>, so that template brackets can be counted; it is put
// together again because nothing stands between its halves.
constexpr std::array<std::string_view, 22> kSymbols = {
    "<<=", "...", "::", "->", "++", "--", "<<", "<=", ">=", "==", "!=",
    "&&",  "||",  "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "##"};

class Lexer {
 public:
  Lexer(std::string_view text, std::string_view op) : text_(text), op_(op) {}

  KernelTokens run() {
    KernelTokens result;
    bool line_start = true;
    for (;;) {
      const size_t space = at_;
      line_start = skip_space() || line_start;
      std::string gap(text_.substr(space, at_ - space));
      if (at_ >= text_.size()) {
        result.tail = std::move(gap);
        return result;
      }
      const size_t start = at_;
      const int line = line_;
      const TokenKind kind = take(line_start);
      line_start = false;
      result.tokens.push_back(
          {kind,
           std::string(text_.substr(start, at_ - start)),
           std::move(gap),
           line});
    }
  }

 private:
  char peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  // Goes over white space and comments; true if a line ended.
  bool skip_space() {
    bool new_line = false;
    for (;;) {
      const char c = peek();
      if (c == '\n') {
        new_line = true;
        ++line_;
        ++at_;
      } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f') {
        ++at_;
      } else if (c == '\\' && (peek(1) == '\n' || peek(1) == '\r')) {
        ++at_;
      } else if (c == '/' && peek(1) == '/') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (c == '/' && peek(1) == '*') {
        const size_t end = text_.find("*/", at_ + 2);
        if (end == std::string_view::npos) {
          invalid(op_, "line ", line_, ": a comment must end with */.");
        }
        const auto comment = text_.substr(at_, end - at_);
        line_ +=
            static_cast<int>(std::count(comment.begin(), comment.end(), '\n'));
        at_ = end + 2;
      } else {
        return new_line;
      }
    }
  }

  TokenKind take(bool line_start) {
    const char c = peek();
    if (c == '#' && line_start) {
      return take_directive();
    }
    if (is_word_start(c)) {
      while (is_word_start(peek()) || is_digit(peek())) {
        ++at_;
      }
      return TokenKind::Word;
    }
    if (is_digit(c) || (c == '.' && is_digit(peek(1)))) {
      return take_number();
    }
    if (c == '"' || c == '\'') {
      return take_string(c);
    }
    for (const auto symbol : kSymbols) {
      if (text_.substr(at_, symbol.size()) == symbol) {
        at_ += symbol.size();
        return TokenKind::Symbol;
      }
    }
    ++at_;
    return TokenKind::Symbol;
  }

  TokenKind take_directive() {
    while (at_ < text_.size() && peek() != '\n') {
      if (peek() == '\\' && peek(1) == '\n') {
        ++at_;
        ++line_;
      }
      ++at_;
    }
    return TokenKind::Directive;
  }

  TokenKind take_number() {
    for (;;) {
      const char c = peek();
      const bool exponent_sign = (c == '+' || c == '-') && at_ > 0 &&
          std::string_view("eEpP").find(text_[at_ - 1]) !=
              std::string_view::npos &&
          !(text_.substr(start_of_number(), 2) == "0x" &&
            std::string_view("eE").find(text_[at_ - 1]) !=
                std::string_view::npos);
      const bool separator = c == '\'' && is_digit(peek(1));
      if (!is_word_start(c) && !is_digit(c) && c != '.' && !exponent_sign &&
          !separator) {
        return TokenKind::Number;
      }
      ++at_;
    }
  }

  // Where the number that at_ is in begins.
  size_t start_of_number() const {
    size_t i = at_;
    while (i > 0 &&
           (is_word_start(text_[i - 1]) || is_digit(text_[i - 1]) ||
            text_[i - 1] == '.')) {
      --i;
    }
    return i;
  }

  TokenKind take_string(char quote) {
    for (++at_; peek() != quote; ++at_) {
      if (at_ >= text_.size() || peek() == '\n') {
        invalid(op_, "line ", line_, ": a literal must end with ", quote, '.');
      }
      if (peek() == '\\') {
        ++at_;
      }
    }
    ++at_;
    return TokenKind::String;
  }

  std::string_view text_;
  std::string_view op_;
  size_t at_ = 0;
  int line_ = 1;
};

} // namespace

std::string KernelTokens::text() const {
  std::string result;
  for (const auto& token : tokens) {
    result += token.space;
    result += token.text;
  }
  return result + tail;
}

KernelTokens kernel_tokens(std::string_view text, std::string_view op) {
  return Lexer(text, op).run();
}

size_t closing(const std::vector<KernelToken>& tokens, size_t open) {
  const std::string& opener = tokens[open].text;
  const std::string_view closer = opener == "(" ? ")"
      : opener == "["                           ? "]"
      : opener == "{"                           ? "}"
                                                : ">";
  int depth = 0;
  for (size_t i = open; i < tokens.size(); ++i) {
    if (tokens[i].kind != TokenKind::Symbol) {
      continue;
    }
    if (tokens[i].text == opener) {
      ++depth;
    } else if (tokens[i].text == closer && --depth == 0) {
      return i;
    }
  }
  return tokens.size();
}

} // namespace zmlx::dialect
