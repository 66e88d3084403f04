// SPDX-License-Identifier: MIT
// Weights of small floats for tests, and the values that MLX gives them.
#pragma once

#include <utility>

#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx::cpu {

namespace mx = mlx::core;

struct Mode {
  const char* name;
  Scheme scheme;
  int bits, group_size;
};
inline constexpr Mode kModes[] = {
    {"mxfp4", Scheme::MXFP4, 4, 32},
    {"nvfp4", Scheme::NVFP4, 4, 16},
    {"mxfp8", Scheme::MXFP8, 8, 32}};

inline quant::QuantizedArrays packed(const Mode& mode, const mx::array& w) {
  auto parts = mx::quantize(w, mode.group_size, mode.bits, mode.name);
  mx::eval(parts);
  return {
      parts[0], parts[1], parts[1], mode.bits, mode.group_size, mode.scheme};
}

inline quant::QuantizedArrays
random(const Mode& mode, mx::Shape shape, int seed) {
  return packed(
      mode,
      mx::random::normal(std::move(shape), mx::float32, mx::random::key(seed)));
}

inline mx::array dequantized(
    const Mode& mode,
    const quant::QuantizedArrays& w) {
  auto values = mx::dequantize(
      w.words,
      w.scales,
      std::nullopt,
      mode.group_size,
      mode.bits,
      mode.name,
      std::nullopt,
      mx::float32);
  values = mx::contiguous(values);
  mx::eval(values);
  return values;
}

} // namespace zmlx::cpu
