// SPDX-License-Identifier: MIT
// A function with a gradient that is better than what MLX would derive.
#pragma once

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "mlx/mlx.h"

#include "zmlx/runtime/transformed_op.h"

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

/// The same where a primitive without transformations of its own, run(inputs)
/// of exactly these inputs, computes what forward does: jvp and vmap go through
/// forward.
template <class Run, class Forward, class Vjp>
std::vector<mx::array> with_own_gradient(
    const std::vector<mx::array>& inputs,
    Run&& run,
    const Forward& forward,
    const Vjp& vjp) {
  using Arrays = std::vector<mx::array>;
  OpTransforms transforms;
  transforms.vjp = vjp;
  transforms.jvp = [forward](
                       const Arrays& primals,
                       const Arrays& tangents,
                       const std::vector<int>& places) {
    Arrays all;
    for (const auto& primal : primals) {
      all.push_back(mx::zeros_like(primal));
    }
    for (size_t i = 0; i < places.size(); ++i) {
      all[static_cast<size_t>(places[i])] = tangents[i];
    }
    return mx::jvp(forward, primals, all).second;
  };
  transforms.vmap = [forward, vjp](
                        const Arrays& given, const std::vector<int>& axes) {
    Arrays outputs = mx::vmap(
        [&](const Arrays& in) { return with_own_gradient(in, forward, vjp); },
        axes)(given);
    std::vector<int> out_axes(outputs.size(), 0);
    return std::pair(std::move(outputs), std::move(out_axes));
  };
  return transformed_op(run(inputs), inputs.size(), std::move(transforms));
}

} // namespace zmlx
