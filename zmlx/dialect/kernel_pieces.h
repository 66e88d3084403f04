// SPDX-License-Identifier: MIT
// What the texts of elementwise and row kernels share.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/dialect/expression.h"

namespace zmlx::dialect {

// "x0", "x1", ...
inline std::vector<std::string> numbered(std::string_view name, size_t count) {
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    names.push_back(concat(name, i));
  }
  return names;
}

// Which inputs an expression reads.
inline std::vector<char> used_inputs(const FlatExpression& expression) {
  std::vector<char> used(static_cast<size_t>(expression.num_inputs));
  for (const auto& step : expression.code) {
    if (step.op == Op::Input) {
      used[step.bits] = 1;
    }
  }
  return used;
}

inline bool is_narrow(const std::vector<std::string>& types) {
  return std::ranges::all_of(types, [](const std::string& type) {
    return type == "half" || type == "float16_t" || type == "bfloat16_t";
  });
}

// Elements side by side, read or written at once, and the same as floats. MLX's
// memory on the host begins at multiples of 8 bytes. On CUDA two small floats
// share an instruction, which the compiler does not see by itself.
inline constexpr std::string_view kPack = R"metal(
#if defined(ZM_HOST)
#define KK_ACCESS 8
#else
#define KK_ACCESS 16
#endif
template <typename T, int N>
struct alignas(N * sizeof(T) < KK_ACCESS ? N * sizeof(T) : KK_ACCESS) kk_pack {
  T at[N];
};
template <int N>
struct kk_words {
  uint at[N / 2];
};
template <typename T, int N>
inline void kk_widen(thread float* to, thread const kk_pack<T, N>& from) {
#if defined(ZM_PAIRS)
  if constexpr (is_same_v<T, bfloat16_t>) {
    const kk_words<N> words = as_type<kk_words<N>>(from);
#pragma unroll
    for (int v = 0; v < N; v += 2) {
      to[v] = as_type<float>(words.at[v / 2] << 16);
      to[v + 1] = as_type<float>(words.at[v / 2] & 0xffff0000u);
    }
    return;
  }
#endif
#pragma unroll
  for (int v = 0; v < N; ++v) {
    to[v] = float(from.at[v]);
  }
}
template <typename T, int N>
inline void kk_round(thread kk_pack<T, N>& to, thread const float* from) {
#if defined(ZM_PAIRS)
  if constexpr (zm_is_small<T>) {
    kk_words<N> words;
#pragma unroll
    for (int v = 0; v < N; v += 2) {
      words.at[v / 2] = zm_pair<T>(from[v], from[v + 1]);
    }
    to = as_type<kk_pack<T, N>>(words);
    return;
  }
#endif
#pragma unroll
  for (int v = 0; v < N; ++v) {
    to.at[v] = static_cast<T>(from[v]);
  }
}
)metal";

inline std::string pack_of(std::string_view type, int wide) {
  return concat("kk_pack<", type, ", ", wide, ">");
}

// The elements of `array` from `at` on, as an lvalue.
inline std::string pack_at(
    std::string_view pack,
    std::string_view array,
    std::string_view at,
    std::string_view qualifier) {
  return concat("*(", qualifier, "device ", pack, "*)(", array, " + ", at, ")");
}

// Floats `name` of a pack, and a new pack of floats.
inline std::string
widened(std::string_view name, std::string_view pack, int wide) {
  return concat(
      "float ", name, "[", wide, "];\nkk_widen(", name, ", ", pack, ");\n");
}
inline std::string
rounded(std::string_view name, std::string_view pack, std::string_view floats) {
  return concat(pack, " ", name, ";\nkk_round(", name, ", ", floats, ");\n");
}

} // namespace zmlx::dialect
