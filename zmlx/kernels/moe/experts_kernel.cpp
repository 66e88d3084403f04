// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/experts_kernel.h"

#include "zmlx/authoring/kernel.h"
#include "zmlx/base/error.h"
#include "zmlx/dialect/print.h"
#include "zmlx/kernels/common/constants.h"
#include "zmlx/kernels/common/unit_product.h"
#include "zmlx/kernels/moe/experts_text.h"

namespace zmlx::moe {
namespace {

using Arrays = std::vector<mx::array>;

constexpr int kRows = 2; // of a matrix that a SIMD-group takes at once
constexpr int kNoActivation = 5; // KIND in the text, behind Activation::Kind's

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

mx::array no_ids() {
  return mx::view(constants({0}), mx::uint32);
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
    int kind,
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
           {"KIND", kind},
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

bool fits_logits(const Projection& router) {
  return fits(router);
}

mx::array logits_by_kernel(const mx::array& x, const Projection& router) {
  return hidden_by_kernel(
      x, {std::nullopt, router, router}, kNoActivation, no_ids(), 1, false);
}

mx::array experts_by_kernels(
    const mx::array& x,
    const ExpertArrays& experts,
    const std::optional<Chosen>& chosen) {
  const auto ids = chosen ? chosen->ids : no_ids();
  const auto weights = chosen ? chosen->weights : constants({1});
  const int top_k = chosen ? ids.shape(1) : 1;
  const auto hidden = hidden_by_kernel(
      x,
      experts,
      static_cast<int>(experts.activation.kind),
      ids,
      top_k,
      chosen.has_value());
  return down_by_kernel(
      hidden,
      experts.down,
      Chosen{ids, weights},
      top_k,
      chosen.has_value(),
      x.dtype());
}

} // namespace zmlx::moe
