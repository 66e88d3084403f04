// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/moe_mlp.h"

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/composed_transforms.h"
#include "zmlx/kernels/common/dense.h"
#include "zmlx/kernels/common/multiply_rows.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/kernels/common/vector_math.h"
#include "zmlx/kernels/moe/checked.h"
#include "zmlx/kernels/moe/experts_kernel.h"
#include "zmlx/kernels/moe/places.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/device_name.h"

namespace zmlx::moe {
namespace {

/// Router logits of every token, (tokens, experts).
std::vector<float> router_logits(
    ThreadTeam& team,
    const cpu::ExpertMatrix& router,
    const std::vector<const float*>& x) {
  const auto experts = static_cast<size_t>(router.rows());
  std::vector<float> logits(x.size() * experts);
  std::vector<float*> out;
  for (size_t i = 0; i < x.size(); ++i) {
    out.push_back(logits.data() + i * experts);
  }
  std::visit(
      [&](const auto& w) { cpu::multiply_rows(team, w, x, out); },
      router.weight);
  if (router.bias.values) {
    std::vector<float> bias(experts);
    cpu::copy_row(router.bias, 0, bias.data());
    for (float* row : out) {
      cpu::axpy(1.0f, bias.data(), row, router.rows());
    }
  }
  return logits;
}

/// x times each token's only weight, which then is one.
std::vector<float>
scaled(std::vector<const float*>& x, std::vector<float>& weights, int64_t dim) {
  std::vector<float> values(x.size() * static_cast<size_t>(dim));
  for (size_t t = 0; t < x.size(); ++t) {
    float* to = values.data() + t * static_cast<size_t>(dim);
    cpu::axpy(weights[t], x[t], to, dim);
    x[t] = to;
    weights[t] = 1;
  }
  return values;
}
struct MoePlaces {
  RouterSpec spec;
  int count; // of experts
  Place router;
  ExpertPlaces experts;
  int expert_bias = -1;

  void run(const Arrays& in, Arrays& out) const {
    RowsInOut rows(in[0], out[0]);
    if (rows.x.empty()) {
      return;
    }
    const auto team = thread_team();
    const auto logits = router_logits(*team, router.view(in), rows.x);
    std::vector<float> scratch;
    const float* bias =
        expert_bias < 0 ? nullptr : RowReader(in[expert_bias]).row(0, scratch);
    const size_t pairs = rows.x.size() * spec.top_k;
    std::vector<int> ids(pairs);
    std::vector<float> weights(pairs);
    for (size_t t = 0; t < rows.x.size(); ++t) {
      route(
          spec,
          logits.data() + t * count,
          bias,
          count,
          ids.data() + t * spec.top_k,
          weights.data() + t * spec.top_k);
    }
    std::vector<float> inputs;
    if (spec.weight_on_input) {
      inputs = scaled(rows.x, weights, in[0].shape(-1));
    }
    cpu::run_experts(
        *team,
        experts.view(in),
        {ids.data(), weights.data(), spec.top_k, count},
        rows.x,
        rows.y);
    rows.store();
  }

  mx::array composed(const Arrays& in) const {
    const mx::array& x = in[0];
    const mx::array logits = router.composed(x, in, std::nullopt);
    std::optional<mx::array> bias;
    if (expert_bias >= 0) {
      bias = in[expert_bias];
    }
    const auto [weights, ids] = route(logits, spec, bias);
    const mx::array chosen = mx::stop_gradient(ids);
    const mx::array w =
        mx::expand_dims(mx::astype(weights, x.dtype()), -1); // (..., k, 1)
    const mx::array rows = spec.weight_on_input ? x * mx::squeeze(w, -1) : x;
    const mx::array y = outputs(rows, in, chosen);
    return mx::sum(spec.weight_on_input ? y : y * w, -2);
  }

  /// On a GPU: few tokens by kernels of ours, which have no gradients.
  mx::array on_gpu(
      const Arrays& in,
      const Projection& by_logits,
      const ExpertArrays& weights) const {
    const mx::array& x = in[0];
    const int64_t rows = static_cast<int64_t>(x.size()) / x.shape(-1);
    if (rows == 0) {
      return x; // MLX cannot launch nothing there
    }
    if (traced(in) || spec.weight_on_input ||
        worth_sorting(rows * spec.top_k, count) || !fits_kernels(weights)) {
      return composed(in);
    }
    const auto flat = mx::reshape(x, {static_cast<int>(rows), x.shape(-1)});
    // MLX's product of float32 on CUDA may take TF32, in which the values of 16
    // bits that it has here are exact.
    const mx::array logits = fits_logits(by_logits)
        ? logits_by_kernel(flat, by_logits)
        : router.composed(mx::astype(flat, mx::float32), in, std::nullopt);
    std::optional<mx::array> bias;
    if (expert_bias >= 0) {
      bias = in[expert_bias];
    }
    const auto [by, ids] = route(logits, spec, bias);
    return mx::reshape(
        experts_by_kernels(flat, weights, Chosen{ids, by}), x.shape());
  }

 private:
  /// Of each token's experts, (..., top_k, dim).
  mx::array
  outputs(const mx::array& x, const Arrays& in, const mx::array& chosen) const {
    if (!worth_sorting(static_cast<int64_t>(chosen.size()), count)) {
      return mx::squeeze(
          experts.composed(
              mx::expand_dims(x, {-2, -3}), in, ChosenMatrices{chosen}),
          -2);
    }
    const int dim = x.shape(-1);
    const auto sorted = sort_pairs(
        mx::reshape(x, {-1, dim}), mx::reshape(chosen, {-1, spec.top_k}));
    const auto y =
        experts.composed(sorted.rows, in, ChosenMatrices{sorted.ids, true});
    mx::Shape shape = chosen.shape();
    shape.push_back(dim);
    return mx::reshape(mx::take(y, sorted.back, 0), shape);
  }
};
} // namespace

mx::array moe_mlp(
    const mx::array& x,
    const RouterSpec& spec,
    const Projection& router,
    const std::optional<mx::array>& expert_bias,
    const ExpertArrays& experts) {
  constexpr const char* kOp = "moe_mlp";
  const auto weights = checked(kOp, x, experts, true);
  const int count = stored(weights.up).shape(0);
  if (const auto why = why_not_a_router(spec, count); !why.empty()) {
    invalid(kOp, why, '.');
  }
  if (spec.weight_on_input && spec.top_k != 1) {
    invalid(
        kOp,
        "top_k must be 1 where weights multiply the input, got ",
        spec.top_k,
        '.');
  }
  if (expert_bias &&
      (expert_bias->shape() != mx::Shape{count} ||
       !quant::is_float(expert_bias->dtype()))) {
    invalid(
        kOp,
        "the expert bias must be (",
        count,
        ") float, got ",
        expert_bias->shape(),
        '.');
  }
  Arrays inputs = {x};
  const auto good_router =
      checked(kOp, "the router", router, 0, count, x.shape(-1));
  MoePlaces places{
      spec, count, Place(good_router, inputs), ExpertPlaces(weights, inputs)};
  std::vector<int> differentiable = {0};
  places.router.add_differentiable(differentiable);
  places.experts.add_differentiable(differentiable);
  if (expert_bias) {
    places.expert_bias = static_cast<int>(inputs.size());
    differentiable.push_back(places.expert_bias);
    inputs.push_back(*expert_bias);
  }
  if (on_a_gpu()) {
    return places.on_gpu(inputs, good_router, weights);
  }
  return differentiable_op(
      {kOp,
       [places](const Arrays& in) {
         return cpu_op(
             "MoeMlpCpu",
             in,
             {{in[0].shape(), in[0].dtype()}},
             [places](const Arrays& given, Arrays& out) {
               places.run(given, out);
             });
       },
       [places](const Arrays& in) { return Arrays{places.composed(in)}; },
       differentiable},
      inputs)[0];
}
} // namespace zmlx::moe
