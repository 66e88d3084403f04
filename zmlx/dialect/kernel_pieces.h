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

// Elements side by side, read or written at once. MLX's memory on the host
// begins at multiples of 8 bytes.
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
)metal";

// The elements of `array` from `at` on, as an lvalue.
inline std::string pack_at(
    std::string_view type,
    int wide,
    std::string_view array,
    std::string_view at,
    std::string_view qualifier) {
  return concat(
      "*(",
      qualifier,
      "device kk_pack<",
      type,
      ", ",
      wide,
      ">*)(",
      array,
      " + ",
      at,
      ")");
}

} // namespace zmlx::dialect
