// SPDX-License-Identifier: MIT
#include "zmlx/dialect/rows_fold.h"

#include <algorithm>

#include "zmlx/base/error.h"

namespace zmlx::dialect {
namespace {

constexpr Fold kFolds[] = {
    {Combine::Sum, "zmlx_sum", "0.0f"},
    {Combine::Product, "zmlx_product", "1.0f"},
    {Combine::Min, "zmlx_min", "INFINITY"},
    {Combine::Max, "zmlx_max", "-INFINITY"}};

} // namespace

std::string
combined(Combine combine, const std::string& a, const std::string& b) {
  switch (combine) {
    case Combine::Sum:
      return concat(a, " + ", b);
    case Combine::Product:
      return concat(a, " * ", b);
    case Combine::Min:
      return concat("fmin(", a, ", ", b, ")");
    default:
      return concat("fmax(", a, ", ", b, ")");
  }
}

const Fold& fold_of(Combine combine) {
  return *std::ranges::find(kFolds, combine, &Fold::combine);
}

std::string fold_functions() {
  std::string text;
  for (const auto& [combine, name, neutral] : kFolds) {
    text += concat(
        "inline float ",
        name,
        "(float v, threadgroup float* scratch, uint lane, uint threads) {\n"
        "  for (ushort o = 16; o > 0; o /= 2) {\n    v = ",
        combined(combine, "v", "simd_shuffle_xor(v, o)"),
        ";\n  }\n"
        "  if (threads <= 32) { return v; }\n"
        "  if (lane % 32 == 0) { scratch[lane / 32] = v; }\n"
        "  threadgroup_barrier(mem_flags::mem_threadgroup);\n"
        "  v = scratch[0];\n"
        "  for (uint i = 1; i < threads / 32; ++i) {\n    v = ",
        combined(combine, "v", "scratch[i]"),
        ";\n  }\n"
        "  return v;\n}\n");
  }
  return text;
}

} // namespace zmlx::dialect
