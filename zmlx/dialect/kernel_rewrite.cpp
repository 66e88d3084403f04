// SPDX-License-Identifier: MIT
#include "zmlx/dialect/kernel_rewrite.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "zmlx/base/error.h"

namespace zmlx::dialect {
namespace {

// A threadgroup variable takes a place of a table of this size on the host.
constexpr int kMaxThreadgroupVariables = 64;

bool is_one_of(
    std::string_view word,
    std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool is_address_space(std::string_view word) {
  return is_one_of(
      word, {"device", "constant", "threadgroup", "thread", "ray_data"});
}

bool is_qualifier(std::string_view word) {
  return is_one_of(
      word, {"const", "volatile", "constexpr", "static", "inline"});
}

bool is_operand_keyword(std::string_view word) {
  return is_one_of(word, {"return", "case", "else", "do", "delete", "throw"});
}

bool is_assignment(std::string_view symbol) {
  return symbol == "=";
}

bool is_any_assignment(std::string_view symbol) {
  return is_one_of(symbol, {"=", "+=", "-=", "*=", "/="});
}

int component(char c) {
  const auto at = std::string_view("xyzwrgba").find(c);
  return at == std::string_view::npos ? -1 : static_cast<int>(at % 4);
}

// Whether a token can end an operand, so that & and [ after it are binary.
bool ends_operand(const KernelToken& token) {
  return token.kind == TokenKind::Number || token.kind == TokenKind::String ||
      (token.kind == TokenKind::Word && !is_operand_keyword(token.text)) ||
      token.is(")") || token.is("]");
}

} // namespace

// [qualifiers and address space] type [qualifiers] then what?
struct KernelRewriter::Declaration {
  size_t begin = 0; // first qualifier
  size_t type_begin = 0, type_end = 0;
  size_t next = 0; // first token behind the type and its qualifiers
  std::string space; // the address space
  bool is_const = false;
  bool is_constexpr = false;
  bool is_static = false;
};

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
