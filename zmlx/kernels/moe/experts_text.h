// SPDX-License-Identifier: MIT
// The text of the kernels of experts_kernel.cpp, in Metal's dialect.
#pragma once

namespace zmlx::moe {

inline constexpr const char* kHeader = R"(
// Kinds as Activation::Kind numbers them, 5 for none.
template <int KIND>
inline float function_of(float x) {
  if (KIND == 1) {
    float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanh(inner));
  }
  if (KIND == 2) {
    return 0.5f * x * (1.0f + kk_erf(x * 0.7071067811865475f));
  }
  if (KIND == 3) {
    return x < 0 ? 0.0f : x * x; // NaN stays
  }
  if (KIND == 5) {
    return x;
  }
  return x * kk_sigmoid(x);
}
)";

// hidden = the activation of gate x and up x of each chosen expert; a
// threadgroup takes ROWS rows of one.
inline constexpr const char* kHidden = R"(
  threadgroup float held[HELD * 36];
  int lane = thread_index_in_simdgroup;
  int at = thread_index_in_threadgroup, threads = threads_per_threadgroup.x;
  int pair = threadgroup_position_in_grid.y;
  size_t expert = ROUTED ? ids[pair] : 0;
  int first = (threadgroup_position_in_grid.x * (threads / 32) +
               simdgroup_index_in_threadgroup) * 2;
  const size_t x_at = size_t(pair / TOP_K) * UNITS * 32;
  float gated[2] = {0, 0}, linear[2] = {0, 0};
  for (int chunk = 0; chunk < UNITS; chunk += HELD) {
    int units = min(HELD, UNITS - chunk);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = at; i < units * 32; i += threads) {
      held[i / 32 * 36 + i % 32] = float(x[x_at + chunk * 32 + i]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int u = lane; u < units; u += 32) {
      Unit v = unit_at(held, u);
      for (int r = 0; r < 2; ++r) {
        size_t row = expert * ROWS + min(first + r, ROWS - 1);
        size_t unit = row * UNITS + chunk + u;
        linear[r] += product<UP_BITS, UP_GROUP>(
            up_words, up_scales, up_biases, unit, v);
        if (GATED) {
          gated[r] += product<GATE_BITS, GATE_GROUP>(
              gate_words, gate_scales, gate_biases, unit, v);
        }
      }
    }
  }
  for (int r = 0; r < 2; ++r) {
    float g = simd_sum(gated[r]), u = simd_sum(linear[r]);
    int row = first + r;
    if (lane != 0 || row >= ROWS) {
      continue;
    }
    g += BIASED ? float(gate_bias[expert * ROWS + row]) : 0.0f;
    u += BIASED ? float(up_bias[expert * ROWS + row]) : 0.0f;
    float y;
    if (KIND == 4) { // alpha and the limit
      // min() and clamp() would pass over NaN.
      g = g > numbers[1] ? numbers[1] : g;
      u = u > numbers[1] ? numbers[1] : u < -numbers[1] ? -numbers[1] : u;
      y = (u + 1.0f) * (g * kk_sigmoid(numbers[0] * g));
    } else {
      y = GATED ? function_of<KIND>(g) * u : function_of<KIND>(u);
    }
    hidden[size_t(pair) * ROWS + row] = y;
  }
)";

// out = the sum of each chosen expert's weight times down hidden; the vectors
// of a token's experts stand behind one another, as one.
inline constexpr const char* kDown = R"(
  threadgroup float held[HELD * 36];
  int lane = thread_index_in_simdgroup;
  int at = thread_index_in_threadgroup, threads = threads_per_threadgroup.x;
  int token = threadgroup_position_in_grid.y;
  int first = (threadgroup_position_in_grid.x * (threads / 32) +
               simdgroup_index_in_threadgroup) * 2;
  const size_t hidden_at = size_t(token) * TOP_K * UNITS * 32;
  float sum[2] = {0, 0};
  for (int chunk = 0; chunk < TOP_K * UNITS; chunk += HELD) {
    int units = min(HELD, TOP_K * UNITS - chunk);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = at; i < units * 8; i += threads) {
      *(threadgroup float4*)(held + i / 8 * 36 + i % 8 * 4) =
          *(const device float4*)(hidden + hidden_at + chunk * 32 + 4 * i);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int u = lane; u < units; u += 32) {
      Unit v = unit_at(held, u);
      int pair = token * TOP_K + (chunk + u) / UNITS;
      size_t expert = ROUTED ? ids[pair] : 0;
      float weight = ROUTED ? weights[pair] : 1.0f;
      for (int r = 0; r < 2; ++r) {
        size_t row = expert * ROWS + min(first + r, ROWS - 1);
        sum[r] = fma(weight, product<BITS, GROUP>(
            words, scales, biases, row * UNITS + (chunk + u) % UNITS, v),
            sum[r]);
      }
    }
  }
  for (int r = 0; r < 2; ++r) {
    float y = simd_sum(sum[r]);
    int row = first + r;
    if (lane != 0 || row >= ROWS) {
      continue;
    }
    for (int j = 0; BIASED && j < TOP_K; ++j) {
      int pair = token * TOP_K + j;
      size_t expert = ROUTED ? ids[pair] : 0;
      y = fma(ROUTED ? weights[pair] : 1.0f,
              float(bias[expert * ROWS + row]), y);
    }
    out[size_t(token) * ROWS + row] = T(y);
  }
)";

} // namespace zmlx::moe
