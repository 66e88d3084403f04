// SPDX-License-Identifier: MIT
// Rewrites the words of the Metal dialect that C++ and CUDA do not have:
// address spaces, attributes, half literals, swizzles.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/dialect/kernel_tokens.h"

namespace zmlx::dialect {

enum class KernelTarget : unsigned char { Cuda, Host, Checked };

class KernelRewriter {
 public:
  /// `op` names the kernel in errors.
  KernelRewriter(KernelTarget target, std::string op);

  /// Call for the whole text first: a member that a struct of the kernel
  /// declares is no swizzle.
  void learn_members(const KernelTokens& text);

  /// The text in the target's words, with every line where it was.
  std::string rewrite(const KernelTokens& text);

  /// Threadgroup variables met so far.
  int num_threadgroup_variables() const {
    return threadgroup_variables_;
  }

 private:
  // [qualifiers and address space] type [qualifiers] then what?
  struct Declaration {
    size_t begin = 0; // first qualifier
    size_t type_begin = 0, type_end = 0;
    size_t next = 0; // first token behind the type and its qualifiers
    std::string space; // the address space
    bool is_const = false;
    bool is_constexpr = false;
    bool is_static = false;
  };
  using Tokens = std::vector<KernelToken>;

  size_t rewrite_one(const Tokens& tokens, size_t at, std::string& out);
  void rewrite_range(
      const Tokens& tokens,
      size_t begin,
      size_t end,
      std::string& out);
  std::string text_of(const Tokens& tokens, size_t begin, size_t end);
  std::string directive(const KernelToken& token);
  bool declaration_at(const Tokens& tokens, size_t at, Declaration& found);
  std::string type_of(const Tokens& tokens, const Declaration& found);
  size_t emit_declaration(
      const Tokens& tokens,
      const Declaration& found,
      std::string& out);
  size_t emit_threadgroup(
      const Tokens& tokens,
      const Declaration& found,
      std::string& out);
  bool swizzle_at(const Tokens& tokens, size_t at) const;
  size_t emit_member(const Tokens& tokens, size_t at, std::string& out);
  size_t emit_subscript(const Tokens& tokens, size_t at, std::string& out);
  size_t emit_address(const Tokens& tokens, size_t at, std::string& out);
  size_t emit_shared_scalar(const Tokens& tokens, size_t at, std::string& out);
  bool checked() const {
    return target_ == KernelTarget::Checked;
  }

  KernelTarget target_;
  std::string op_;
  std::set<std::string, std::less<>> members_;
  std::set<std::string, std::less<>> shared_scalars_;
  int threadgroup_variables_ = 0;
  int parentheses_ = 0;
  int braces_ = 0;
};

} // namespace zmlx::dialect
