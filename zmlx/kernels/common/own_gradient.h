// SPDX-License-Identifier: MIT
// A function with a gradient that is better than what MLX would derive.
#pragma once

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// forward(inputs); where MLX traces, with vjp(inputs, cotangents, outputs),
/// one gradient for each input, as its gradient. jvp and vmap are forward's,
/// and second derivatives those of vjp. Untraced calls are forward's own: a
/// custom function holds on to its inputs, whose buffers could else be reused.
template <class Forward, class Vjp>
std::vector<mx::array> with_own_gradient(
    const std::vector<mx::array>& inputs,
    Forward&& forward,
    Vjp&& vjp) {
  const bool traced = std::ranges::any_of(
      inputs, [](const mx::array& input) { return input.is_tracer(); });
  return traced
      ? mx::custom_vjp(
            std::forward<Forward>(forward), std::forward<Vjp>(vjp))(inputs)
      : forward(inputs);
}

} // namespace zmlx
