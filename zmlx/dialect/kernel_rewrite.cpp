// SPDX-License-Identifier: MIT
#include "zmlx/dialect/kernel_rewrite.h"

#include <algorithm>
#include <utility>

#include "zmlx/base/error.h"
#include "zmlx/dialect/kernel_words.h"

namespace zmlx::dialect {

KernelRewriter::KernelRewriter(KernelTarget target, std::string op)
    : target_(target), op_(std::move(op)) {}

void KernelRewriter::learn_members(const KernelTokens& text) {
  const auto& tokens = text.tokens;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!is_one_of(tokens[i].text, {"struct", "class", "union"})) {
      continue;
    }
    size_t open = i + 1;
    while (open < tokens.size() &&
           !is_one_of(tokens[open].text, {"{", ";", "(", ")", ">", ","})) {
      ++open;
    }
    if (open >= tokens.size() || !tokens[open].is("{")) {
      continue;
    }
    const size_t end = closing(tokens, open);
    for (size_t k = open + 1; k + 1 < end; ++k) {
      if (tokens[k].is("{")) {
        k = closing(tokens, k);
      } else if (
          tokens[k].kind == TokenKind::Word &&
          is_one_of(tokens[k + 1].text, {";", ",", "=", "[", "(", "{"})) {
        members_.insert(tokens[k].text);
      }
    }
  }
}

std::string KernelRewriter::rewrite(const KernelTokens& text) {
  const int parentheses = std::exchange(parentheses_, 0);
  const int braces = std::exchange(braces_, 0);
  std::string out;
  rewrite_range(text.tokens, 0, text.tokens.size(), out);
  parentheses_ = parentheses;
  braces_ = braces;
  return out + text.tail;
}

void KernelRewriter::rewrite_range(
    const Tokens& tokens,
    size_t begin,
    size_t end,
    std::string& out) {
  for (size_t i = begin; i < end;) {
    i = rewrite_one(tokens, i, out);
  }
}

std::string
KernelRewriter::text_of(const Tokens& tokens, size_t begin, size_t end) {
  std::string out;
  rewrite_range(tokens, begin, end, out);
  return out;
}

// Rewrites what begins at `at` and returns the index of what follows.
size_t
KernelRewriter::rewrite_one(const Tokens& tokens, size_t at, std::string& out) {
  const KernelToken& token = tokens[at];
  if (token.kind == TokenKind::Word) {
    Declaration found;
    if (declaration_at(tokens, at, found)) {
      out += token.space;
      return emit_declaration(tokens, found, out);
    }
    if (is_address_space(token.text)) {
      out += token.space; // a qualifier of a member function, or misplaced
      return at + 1;
    }
    if (checked() && token.is("reinterpret_cast")) {
      out += token.space + "metal::zm_pointer_cast";
      return at + 1;
    }
    if (shared_scalars_.count(token.text) &&
        (at == 0 || (!tokens[at - 1].is(".") && !tokens[at - 1].is("->")))) {
      return emit_shared_scalar(tokens, at, out);
    }
  } else if (token.kind == TokenKind::Directive) {
    out += token.space + directive(token);
    return at + 1;
  } else if (token.kind == TokenKind::Number) {
    const std::string& text = token.text;
    const bool hex = text.size() > 1 && (text[1] == 'x' || text[1] == 'X');
    const size_t cut = text.size() > 2 && text.ends_with("bf") ? 2
        : text.ends_with('h') || text.ends_with('H')           ? 1
                                                               : 0;
    out += token.space;
    if (cut == 0 || hex) {
      out += text;
    } else {
      out += concat(
          cut == 2 ? "metal::bfloat(" : "metal::half(",
          text.substr(0, text.size() - cut),
          "f)");
    }
    return at + 1;
  } else if (token.is("[")) {
    if (at + 1 < tokens.size() && tokens[at + 1].is("[") &&
        tokens[at + 1].space.empty()) {
      out += token.space; // an attribute
      return std::min(closing(tokens, at) + 1, tokens.size());
    }
    const bool subscript = at > 0 && ends_operand(tokens[at - 1]);
    if (checked() && subscript) {
      return emit_subscript(tokens, at, out);
    }
  } else if (token.is(".") || token.is("->")) {
    if (swizzle_at(tokens, at)) {
      return emit_member(tokens, at, out);
    }
  } else if (checked() && token.is("&")) {
    const size_t next = emit_address(tokens, at, out);
    if (next != at) {
      return next;
    }
  } else if (token.is("(")) {
    ++parentheses_;
  } else if (token.is(")")) {
    --parentheses_;
  } else if (token.is("{")) {
    ++braces_;
  } else if (token.is("}")) {
    --braces_;
  }
  out += token.space + token.text;
  return at + 1;
}

std::string KernelRewriter::directive(const KernelToken& token) {
  const std::string& text = token.text;
  const size_t name = text.find_first_not_of("# \t");
  const std::string_view rest =
      std::string_view(text).substr(std::min(name, text.size()));
  const auto newlines = std::count(text.begin(), text.end(), '\n');
  if (rest.starts_with("include") || rest.starts_with("import") ||
      rest.starts_with("pragma METAL")) {
    return std::string(newlines, '\n'); // Metal's own; the prelude has it all
  }
  if (!rest.starts_with("define")) {
    return text;
  }
  const size_t body = name + std::string_view("define").size();
  return text.substr(0, body) + rewrite(kernel_tokens(text.substr(body), op_));
}

} // namespace zmlx::dialect
