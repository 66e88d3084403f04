// SPDX-License-Identifier: MIT
// Members, elements and addresses: swizzles, and what checked mode looks after.
#include "zmlx/dialect/kernel_rewrite.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/dialect/kernel_words.h"

namespace zmlx::dialect {

namespace {

bool is_any_assignment(std::string_view symbol) {
  return is_one_of(symbol, {"=", "+=", "-=", "*=", "/="});
}

int component(char c) {
  const auto at = std::string_view("xyzwrgba").find(c);
  return at == std::string_view::npos ? -1 : static_cast<int>(at % 4);
}

} // namespace

bool KernelRewriter::swizzle_at(const Tokens& tokens, size_t at) const {
  if (at + 1 >= tokens.size() || tokens[at + 1].kind != TokenKind::Word) {
    return false;
  }
  const std::string& name = tokens[at + 1].text;
  if (name.size() > 4 || members_.count(name) ||
      (at + 2 < tokens.size() && tokens[at + 2].is("("))) {
    return false;
  }
  const bool color =
      std::string_view("rgba").find(name[0]) != std::string_view::npos;
  if (name.size() == 1 && !color) {
    return false; // .x is a member
  }
  return std::all_of(name.begin(), name.end(), [&](char c) {
    return component(c) >= 0 &&
        (std::string_view("rgba").find(c) != std::string_view::npos) == color;
  });
}

size_t
KernelRewriter::emit_member(const Tokens& tokens, size_t at, std::string& out) {
  const std::string& name = tokens[at + 1].text;
  out += tokens[at].space + tokens[at].text;
  if (name.size() == 1) {
    out += "xyzw"[component(name[0])];
    return at + 2;
  }
  const bool target =
      at + 2 < tokens.size() && is_any_assignment(tokens[at + 2].text);
  std::string indices;
  for (const char c : name) {
    indices += concat(indices.empty() ? "" : ", ", component(c));
  }
  out +=
      concat(target ? "zm_ref" : "zm", "(metal::zm_swizzle<", indices, ">())");
  return at + 2;
}

// p[i] becomes p[zm_at(i)], or p[zm_to(i)] where it is written to.
size_t KernelRewriter::emit_subscript(
    const Tokens& tokens,
    size_t at,
    std::string& out) {
  const size_t close = closing(tokens, at);
  if (close >= tokens.size() || close == at + 1) {
    out += tokens[at].space + tokens[at].text;
    return at + 1;
  }
  size_t end = close + 1;
  for (;;) {
    if (end < tokens.size() && tokens[end].is("[")) {
      end = closing(tokens, end) + 1;
    } else if (end + 1 < tokens.size() && tokens[end].is(".")) {
      end += 2;
    } else {
      break;
    }
  }
  const bool written = end < tokens.size() && is_assignment(tokens[end].text);
  out += concat(
      tokens[at].space,
      written ? "[metal::zm_to(" : "[metal::zm_at(",
      text_of(tokens, at + 1, close),
      ")",
      tokens[close].space,
      "]");
  return close + 1;
}

// &p[i] becomes (p + (i)), which keeps what is known about p.
size_t KernelRewriter::emit_address(
    const Tokens& tokens,
    size_t at,
    std::string& out) {
  if (at + 1 >= tokens.size() || (at > 0 && ends_operand(tokens[at - 1])) ||
      tokens[at + 1].kind != TokenKind::Word) {
    return at;
  }
  const std::string& name = tokens[at + 1].text;
  if (shared_scalars_.count(name)) {
    out += concat(tokens[at].space, "(", name, " + 0)");
    return at + 2;
  }
  if (at + 2 >= tokens.size() || !tokens[at + 2].is("[")) {
    return at;
  }
  const size_t close = closing(tokens, at + 2);
  if (close + 1 < tokens.size() &&
      is_one_of(tokens[close + 1].text, {"[", ".", "->", "("})) {
    return at;
  }
  out += concat(
      tokens[at].space,
      "(",
      name,
      " + (",
      text_of(tokens, at + 3, std::min(close, tokens.size())),
      "))");
  return std::min(close + 1, tokens.size());
}

size_t KernelRewriter::emit_shared_scalar(
    const Tokens& tokens,
    size_t at,
    std::string& out) {
  size_t end = at + 1;
  while (end + 1 < tokens.size() && tokens[end].is(".")) {
    end += 2;
  }
  const bool written = end < tokens.size() && is_assignment(tokens[end].text);
  out += concat(
      tokens[at].space,
      tokens[at].text,
      written ? "[metal::zm_to(0)]" : "[metal::zm_at(0)]");
  return at + 1;
}

} // namespace zmlx::dialect
