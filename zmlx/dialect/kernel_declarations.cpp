// SPDX-License-Identifier: MIT
// Declarations with an address space, in a target's words.
#include "zmlx/dialect/kernel_rewrite.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/dialect/kernel_words.h"

namespace zmlx::dialect {

namespace {

// A threadgroup variable takes a place of a table of this size on the host.
constexpr int kMaxThreadgroupVariables = 64;

} // namespace

bool KernelRewriter::declaration_at(
    const Tokens& tokens,
    size_t at,
    Declaration& found) {
  found.begin = at;
  size_t i = at;
  const auto qualifiers = [&] {
    for (; i < tokens.size(); ++i) {
      const std::string& word = tokens[i].text;
      if (is_address_space(word)) {
        found.space = word;
      } else if (!is_qualifier(word)) {
        break;
      }
      found.is_const |= word == "const";
      found.is_constexpr |= word == "constexpr";
      found.is_static |= word == "static";
    }
  };
  qualifiers();
  if (found.space.empty()) {
    return false;
  }
  found.type_begin = i;
  bool complete = false; // a type's name was read
  for (; i < tokens.size(); ++i) {
    const KernelToken& token = tokens[i];
    if (token.is("::")) {
      complete = false;
    } else if (complete && token.is("<")) {
      i = closing(tokens, i);
    } else if (
        token.kind == TokenKind::Word && !complete &&
        !is_qualifier(token.text)) {
      complete = !is_one_of(
          token.text, {"typename", "struct", "unsigned", "signed", "enum"});
      // `unsigned x` and `long x`: the next word is the name.
      if (!complete && i + 2 < tokens.size() &&
          tokens[i + 1].kind == TokenKind::Word &&
          !is_one_of(tokens[i + 1].text, {"int", "char", "short", "long"}) &&
          is_one_of(token.text, {"unsigned", "signed"})) {
        complete = true;
      }
    } else {
      break;
    }
  }
  if (i == found.type_begin || i >= tokens.size()) {
    return false;
  }
  found.type_end = i;
  qualifiers();
  found.next = i;
  return i < tokens.size();
}

// The type in the target's words, and the line ends of what is left out.
std::string KernelRewriter::type_of(
    const Tokens& tokens,
    const Declaration& found) {
  std::string ends;
  for (size_t i = found.begin + 1; i < found.next; ++i) {
    if (i < found.type_begin || i >= found.type_end) {
      ends.append(
          std::count(tokens[i].space.begin(), tokens[i].space.end(), '\n'),
          '\n');
    }
  }
  std::string type = text_of(tokens, found.type_begin, found.type_end);
  if (type.starts_with(' ')) {
    type.erase(0, 1);
  }
  return ends + type;
}

size_t KernelRewriter::emit_declaration(
    const Tokens& tokens,
    const Declaration& found,
    std::string& out) {
  const KernelToken& next = tokens[found.next];
  const bool array_parameter = parentheses_ > 0 &&
      next.kind == TokenKind::Word && found.next + 1 < tokens.size() &&
      tokens[found.next + 1].is("[");
  const bool pointer = next.is("*") || array_parameter;
  const bool variable = next.kind == TokenKind::Word && parentheses_ == 0;
  if (found.space == "threadgroup" && variable) {
    return emit_threadgroup(tokens, found, out);
  }
  const bool is_const = found.is_const ||
      (found.space == "constant" && (pointer || next.is("&")));
  const std::string type = type_of(tokens, found);
  if (checked() && pointer && found.space != "thread") {
    out += concat("metal::zm_pointer<", is_const ? "const " : "", type, ">");
    if (!array_parameter) {
      return found.next + 1;
    }
    out += next.space + next.text;
    return closing(tokens, found.next + 1) + 1;
  }
  if (found.space == "constant" && variable &&
      (braces_ == 0 || !found.is_constexpr)) {
    // CUDA reads an array at an index from memory of its own only.
    const bool table = target_ == KernelTarget::Cuda && braces_ == 0 &&
        found.next + 1 < tokens.size() && tokens[found.next + 1].is("[");
    out += !table            ? "static constexpr "
        : found.is_constexpr ? "static __device__ constexpr "
                             : "static __constant__ const ";
    out += type;
    return found.next;
  }
  out += found.is_static ? "static " : "";
  out += found.is_constexpr ? "constexpr " : "";
  out += is_const && !found.is_constexpr ? "const " : "";
  out += type;
  return found.next;
}

// threadgroup T a[N], b;
size_t KernelRewriter::emit_threadgroup(
    const Tokens& tokens,
    const Declaration& found,
    std::string& out) {
  const std::string type = type_of(tokens, found);
  size_t i = found.next;
  for (bool more = true; more;) {
    if (++threadgroup_variables_ > kMaxThreadgroupVariables) {
      invalid(
          op_,
          "a kernel must have at most ",
          kMaxThreadgroupVariables,
          " threadgroup variables, got more.");
    }
    const std::string name = tokens[i].text;
    std::string gap = tokens[i].space, dimensions;
    size_t end = i + 1;
    while (end < tokens.size() && tokens[end].is("[")) {
      const size_t close = closing(tokens, end);
      dimensions += concat(
          "[(", text_of(tokens, end + 1, std::min(close, tokens.size())), ")]");
      end = std::min(close + 1, tokens.size());
    }
    if (target_ == KernelTarget::Cuda) {
      out += concat("__shared__ ", type, gap, name, dimensions, ";");
    } else if (target_ == KernelTarget::Host) {
      out += concat(
          "auto&",
          gap,
          name,
          " = metal::zm_threadgroup<",
          type,
          dimensions,
          ">(",
          threadgroup_variables_ - 1,
          ");");
    } else {
      if (dimensions.empty()) {
        shared_scalars_.insert(name);
      }
      out += concat(
          "const auto",
          gap,
          name,
          " = metal::zm_checked_threadgroup<",
          type,
          dimensions.empty() ? "[(1)]" : dimensions,
          ">(",
          threadgroup_variables_ - 1,
          ", \"",
          name,
          "\");");
    }
    more = end < tokens.size() && tokens[end].is(",");
    i = end + 1;
  }
  return i;
}

} // namespace zmlx::dialect
