// SPDX-License-Identifier: MIT
// What stands between an expert's projections.
#pragma once

#include <cstdint>

#include "mlx/mlx.h"

namespace zmlx::moe {

namespace mx = mlx::core;

/// f(gate) * up, or f(up) without a gate.
struct Activation {
  enum class Kind {
    Silu,
    GeluTanh, // by its approximation through tanh
    Gelu,
    Relu2, // max(x, 0)^2
    /// GPT-OSS: g * sigmoid(alpha * g) * (up + 1) with g = min(gate, limit) and
    /// up within limit of 0. Needs a gate.
    ClampedSwiglu,
  };
  Kind kind = Kind::Silu;
  float alpha = 1.702f, limit = 7;
};

/// out = the activation of gate (null: none) and up, which out may be. Float32
/// on the CPU.
void activate(
    const Activation& activation,
    const float* gate,
    const float* up,
    float* out,
    int64_t count);

/// The same of composed MLX operations, in their type.
mx::array composed_activation(
    const Activation& activation,
    const mx::array* gate,
    const mx::array& up);

} // namespace zmlx::moe
