// SPDX-License-Identifier: MIT
// Float32 vector functions of the CPU kernels, for every instruction set. Sums
// have a fixed order: the same bits for the same input and machine.
#pragma once

#include <cstdint>

namespace zmlx::cpu {

/// sum of a * b.
float dot(const float* a, const float* b, int64_t count);

/// 1 / sqrt(mean(x^2) + eps), what RMS normalisation multiplies by.
float rms_scale(const float* x, int64_t count, float eps);

/// y += scale * x.
void axpy(float scale, const float* x, float* y, int64_t count);

/// out = gate / (1 + exp(-gate)) * up; out may be gate or up.
void silu_mul(const float* gate, const float* up, float* out, int64_t count);

/// x = exp(x - most); returns the sum.
float exp_and_sum(float* x, float most, int64_t count);

/// out = x * scale * weight.
void scale_mul(
    const float* x,
    float scale,
    const float* weight,
    float* out,
    int64_t count);

} // namespace zmlx::cpu
