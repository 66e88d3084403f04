// SPDX-License-Identifier: MIT
#include "zmlx/dialect/kernel_parts.h"

#include <algorithm>
#include <array>

#include "zmlx/base/error.h"

namespace zmlx::dialect {
namespace {

constexpr std::array<KernelAttribute, 20> kAttributes = {{
    {"thread_position_in_grid",
     "uint3",
     "zm.group * zm.full_group + zm.position_in_group",
     "metal::zm_thread_position_in_grid()"},
    {"thread_position_in_threadgroup",
     "uint3",
     "zm.position_in_group",
     "metal::zm_uint3(threadIdx)"},
    {"threadgroup_position_in_grid",
     "uint3",
     "zm.group",
     "metal::zm_uint3(blockIdx)"},
    {"threads_per_threadgroup",
     "uint3",
     "zm.group_size",
     "metal::zm_threads_per_threadgroup(zm_grid)"},
    {"dispatch_threads_per_threadgroup",
     "uint3",
     "zm.full_group",
     "metal::zm_uint3(blockDim)"},
    {"threads_per_grid", "uint3", "zm.grid", "zm_grid"},
    {"grid_size", "uint3", "zm.grid", "zm_grid"},
    {"grid_origin", "uint3", "metal::uint3(0u)", "metal::uint3(0u)"},
    {"threadgroups_per_grid", "uint3", "zm.groups", "metal::zm_uint3(gridDim)"},
    {"thread_index_in_threadgroup",
     "uint",
     "zm.index",
     "metal::zm_thread_index()"},
    {"thread_index_in_simdgroup",
     "uint",
     "zm.index % 32",
     "metal::zm_thread_index() % 32"},
    {"simdgroup_index_in_threadgroup",
     "uint",
     "zm.index / 32",
     "metal::zm_thread_index() / 32"},
    {"simdgroups_per_threadgroup",
     "uint",
     "(metal::zm_volume(zm.group_size) + 31) / 32",
     "(metal::zm_volume(metal::zm_threads_per_threadgroup(zm_grid)) + 31) / "
     "32"},
    {"dispatch_simdgroups_per_threadgroup",
     "uint",
     "(metal::zm_volume(zm.full_group) + 31) / 32",
     "(metal::zm_volume(metal::zm_uint3(blockDim)) + 31) / 32"},
    {"threads_per_simdgroup", "uint", "32", "32"},
    {"thread_execution_width", "uint", "32", "32"},
    {"thread_index_in_quadgroup",
     "uint",
     "zm.index % 4",
     "metal::zm_thread_index() % 4"},
    {"quadgroup_index_in_threadgroup",
     "uint",
     "zm.index / 4",
     "metal::zm_thread_index() / 4"},
    {"quadgroups_per_threadgroup",
     "uint",
     "(metal::zm_volume(zm.group_size) + 3) / 4",
     "(metal::zm_volume(metal::zm_threads_per_threadgroup(zm_grid)) + 3) / 4"},
    {"dispatch_quadgroups_per_threadgroup",
     "uint",
     "(metal::zm_volume(zm.full_group) + 3) / 4",
     "(metal::zm_volume(metal::zm_uint3(blockDim)) + 3) / 4"},
}};

} // namespace

bool mentions(const KernelTokens& text, std::string_view word) {
  return std::any_of(
      text.tokens.begin(), text.tokens.end(), [&](const KernelToken& token) {
        return token.text == word ||
            (token.kind == TokenKind::Directive &&
             token.text.find(word) != std::string::npos);
      });
}

KernelParts parts_of(const KernelText& text) {
  const std::string op = concat("kernel ", text.name);
  KernelParts parts{
      kernel_tokens(text.header, op + " header"),
      kernel_tokens(text.body, op + " body"),
      {}};
  for (const auto& attribute : kAttributes) {
    if (mentions(parts.body, attribute.name)) {
      parts.attributes.push_back(&attribute);
    }
  }
  return parts;
}

KernelUse use_of(const KernelParts& parts) {
  KernelUse use;
  for (const auto* attribute : parts.attributes) {
    const std::string_view name = attribute->name;
    use.attributes.emplace_back(name);
    use.sees_threadgroups |= name != "thread_position_in_grid" &&
        name != "threads_per_grid" && name != "grid_size" &&
        name != "grid_origin";
  }
  const auto meets = [](const KernelToken& token) {
    const auto holds = [&](std::string_view word) {
      return token.kind == TokenKind::Directive
          ? token.text.find(word) != std::string::npos
          : token.kind == TokenKind::Word && token.text.starts_with(word);
    };
    const bool simdgroup =
        holds("simdgroup_") && !token.is("simdgroup_index_in_threadgroup");
    return token.is("threadgroup") || holds("threadgroup_barrier") ||
        simdgroup || holds("simd_") || holds("quad_");
  };
  for (const auto* text : {&parts.header, &parts.body}) {
    use.threads_meet |=
        std::any_of(text->tokens.begin(), text->tokens.end(), meets);
  }
  use.sees_threadgroups |= use.threads_meet;
  return use;
}

} // namespace zmlx::dialect
