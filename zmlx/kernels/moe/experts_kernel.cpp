// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/experts_kernel.h"

#include "zmlx/authoring/kernel.h"
#include "zmlx/base/error.h"
#include "zmlx/dialect/print.h"
#include "zmlx/kernels/common/constants.h"
#include "zmlx/kernels/common/unit_product.h"

namespace zmlx::moe {
namespace {

using Arrays = std::vector<mx::array>;

constexpr int kRows = 2; // of a matrix that a SIMD-group takes at once

const char* kHeader = R"(
// Kinds as Activation::Kind numbers them.
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
    return x > 0 ? x * x : 0.0f;
  }
  return x * kk_sigmoid(x);
}
)";

// hidden = the activation of gate x and up x of each chosen expert; a
// threadgroup takes ROWS rows of one.
const char* kHidden = R"(
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
      g = min(g, numbers[1]);
      u = clamp(u, -numbers[1], numbers[1]);
      y = (u + 1.0f) * (g * kk_sigmoid(numbers[0] * g));
    } else {
      y = GATED ? function_of<KIND>(g) * u : function_of<KIND>(u);
    }
    hidden[size_t(pair) * ROWS + row] = y;
  }
)";

// out = the sum of each chosen expert's weight times down hidden; the vectors
// of a token's experts stand behind one another, as one.
const char* kDown = R"(
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

std::string header() {
  return concat(dialect::expression_prelude(), quant::kUnitProduct, kHeader);
}

const quant::QuantizedArrays& packed(const Projection& projection) {
  return std::get<quant::QuantizedArrays>(projection.weight);
}

bool fits(const Projection& projection) {
  const auto* w = std::get_if<quant::QuantizedArrays>(&projection.weight);
  return w && quant::fits_unit_product(*w);
}

/// A bias, or something in its place.
mx::array bias_of(const Projection& projection) {
  return projection.bias.value_or(constants({0}));
}

/// Threads along x that take all rows of a matrix, whole threadgroups of them.
int threads_for(int rows, int threads) {
  return quant::groups_for(rows, threads / 32 * kRows) * threads;
}

mx::array hidden_by_kernel(
    const mx::array& x,
    const ExpertArrays& experts,
    const mx::array& ids,
    int top_k,
    bool routed) {
  static const Kernel kernel(
      {.name = "moe_hidden",
       .inputs =
           {"x",
            "ids",
            "gate_words",
            "gate_scales",
            "gate_biases",
            "gate_bias",
            "up_words",
            "up_scales",
            "up_biases",
            "up_bias",
            "numbers"},
       .outputs = {"hidden"},
       .body = kHidden,
       .header = header()});
  constexpr int kThreads = 256;
  const auto& up = packed(experts.up);
  const bool gated = experts.gate.has_value();
  const Projection& gate_or_up = gated ? *experts.gate : experts.up;
  const auto& gate = packed(gate_or_up);
  const int rows = quant::rows_of(experts.up.weight);
  const int units = x.shape(1) / quant::kUnit;
  const int pairs = x.shape(0) * top_k;
  return kernel(
      {x,
       ids,
       gate.words,
       gate.scales,
       gate.biases,
       bias_of(gate_or_up),
       up.words,
       up.scales,
       up.biases,
       bias_of(experts.up),
       constants({experts.activation.alpha, experts.activation.limit})},
      {.grid = KernelSize{threads_for(rows, kThreads), pairs},
       .threadgroup = KernelSize{kThreads},
       .output_shapes = std::vector<mx::Shape>{{pairs, rows}},
       .output_dtypes = std::vector<mx::Dtype>{mx::float32},
       .templates = std::vector<KernelTemplateArgument>{
           {"UNITS", units},
           {"HELD", std::min(units, quant::kHeldUnits)},
           {"ROWS", rows},
           {"TOP_K", top_k},
           {"ROUTED", routed},
           {"GATED", gated},
           {"BIASED", experts.up.bias.has_value()},
           {"KIND", static_cast<int>(experts.activation.kind)},
           {"GATE_BITS", gate.bits},
           {"GATE_GROUP", gate.group_size},
           {"UP_BITS", up.bits},
           {"UP_GROUP", up.group_size}}})[0];
}

mx::array down_by_kernel(
    const mx::array& hidden,
    const Projection& down,
    const Chosen& chosen,
    int top_k,
    bool routed,
    mx::Dtype dtype) {
  static const Kernel kernel(
      {.name = "moe_down",
       .inputs =
           {"hidden", "ids", "weights", "words", "scales", "biases", "bias"},
       .body = kDown,
       .header = header()});
  constexpr int kThreads = 128;
  const auto& w = packed(down);
  const int rows = quant::rows_of(down.weight);
  const int units = hidden.shape(1) / quant::kUnit;
  const int tokens = hidden.shape(0) / top_k;
  return kernel(
      {hidden,
       chosen.ids,
       chosen.weights,
       w.words,
       w.scales,
       w.biases,
       bias_of(down)},
      {.grid = KernelSize{threads_for(rows, kThreads), tokens},
       .threadgroup = KernelSize{kThreads},
       .output_shapes = std::vector<mx::Shape>{{tokens, rows}},
       .output_dtypes = std::vector<mx::Dtype>{dtype},
       .templates = std::vector<KernelTemplateArgument>{
           {"T", dtype},
           {"UNITS", units},
           {"HELD", std::min(top_k * units, quant::kHeldUnits)},
           {"ROWS", rows},
           {"TOP_K", top_k},
           {"ROUTED", routed},
           {"BIASED", down.bias.has_value()},
           {"BITS", w.bits},
           {"GROUP", w.group_size}}})[0];
}

} // namespace

bool fits_kernels(const ExpertArrays& experts) {
  if (!fits(experts.up) || !fits(experts.down)) {
    return false;
  }
  // One flag says of both whether there are biases.
  return !experts.gate ||
      (fits(*experts.gate) &&
       experts.gate->bias.has_value() == experts.up.bias.has_value());
}

mx::array experts_by_kernels(
    const mx::array& x,
    const ExpertArrays& experts,
    const std::optional<Chosen>& chosen) {
  const auto ids = chosen ? chosen->ids : mx::view(constants({0}), mx::uint32);
  const auto weights = chosen ? chosen->weights : constants({1});
  const int top_k = chosen ? ids.shape(1) : 1;
  const auto hidden =
      hidden_by_kernel(x, experts, ids, top_k, chosen.has_value());
  return down_by_kernel(
      hidden,
      experts.down,
      Chosen{ids, weights},
      top_k,
      chosen.has_value(),
      x.dtype());
}

} // namespace zmlx::moe
