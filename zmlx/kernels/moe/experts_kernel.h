// SPDX-License-Identifier: MIT
// Experts of tokens on a device that is not the CPU: few tokens by two kernels
// in Metal's dialect, many by grouped products.
#pragma once

#include <optional>

#include "zmlx/kernels/moe/moe_mlp.h"

namespace zmlx::moe {

/// The experts chosen for each token, (tokens, top_k) uint32, and the float32
/// weights of their outputs; none: a layer of its own, for every token.
struct Chosen {
  mx::array ids, weights;
};

/// Whether experts_by_kernels() can take the experts: affine weights of rows
/// that are whole units of 32 columns, gate and up packed alike.
bool fits_kernels(const ExpertArrays& experts);

/// A router's logits in float32 whatever x is, (tokens, experts): in 16 bits
/// their rounding errors choose other experts. x (tokens, dim) of float32,
/// float16 or bfloat16; a router (experts, dim) that fits_logits(), checked.
mx::array logits_by_kernel(const mx::array& x, const Projection& router);
bool fits_logits(const Projection& router);

/// The weighted sum of the outputs of chosen experts, or the layer's output,
/// as two kernels: gate, up and activation, then down, its weights and sum.
/// x (tokens, dim) of float32, float16 or bfloat16. Returns x's shape and type,
/// with float32 inside. For checked arguments that fit.
mx::array experts_by_kernels(
    const mx::array& x,
    const ExpertArrays& experts,
    const std::optional<Chosen>& chosen);

} // namespace zmlx::moe
