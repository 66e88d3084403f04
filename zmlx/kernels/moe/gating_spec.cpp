// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/gating_spec.h"

#include "zmlx/kernels/common/reference.h"
#include "zmlx/kernels/moe/gating.h"

namespace zmlx::kernels {
namespace {

using reference::number;

int value_or(const Params& params, const char* name, int standard) {
  return params.contains(name) ? reference::whole(params, name) : standard;
}

Arrays reference_of(const Arrays& in, const Params& params) {
  const int k = value_or(params, "k", 2);
  const bool norm = value_or(params, "norm_topk_prob", 1) != 0;
  const mx::array x =
      in[0].dtype() == mx::float64 ? in[0] : mx::astype(in[0], mx::float32);
  const bool all = in.size() > 1 || !norm;
  mx::array scores = all ? reference::softmax(x) : x;
  if (in.size() > 1) {
    scores = scores + mx::astype(in[1], x.dtype());
  }
  const mx::array chosen =
      mx::stop_gradient(reference::best(mx::stop_gradient(scores), k));
  mx::array weights = mx::take_along_axis(scores, chosen, -1);
  if (!all) {
    weights = reference::softmax(weights);
  } else if (norm) {
    weights = weights / (mx::sum(weights, -1, true) + number(1e-20, weights));
  }
  return {weights, chosen};
}

KernelSpec spec_of(const char* name, const char* summary, const char* call) {
  return {
      .family = "moe",
      .name = name,
      .summary = summary,
      .call = call,
      .inputs = {{"x", "(..., experts) float"}},
      .outputs =
          {{"weights", "(..., k) float32, best first"},
           {"experts", "(..., k) uint32"}},
      .reference = reference_of,
      .gradient = {0},
      .cases = cases_of({{{3, 5}}, {{2, 3, 32}}, {{4, 193}}}),
      .bench = {{mx::float32, {{1, 32}}}, {mx::float32, {{512, 128}}}},
      .terms =
          [](const KernelCase& one) { return int64_t{one.shapes[0].back()}; },
      .specials = Specials::kNone, // one NaN changes the order of all
  };
}

KernelSpec topk_spec() {
  KernelSpec spec = spec_of(
      "topk_gating_softmax",
      "The k best experts of a softmax and their weights",
      "zmlx::moe::topk_gating_softmax(x, k, expert_bias, norm_topk_prob)");
  spec.inputs.push_back(
      {"expert_bias", "(experts) float, or none", false, true});
  spec.params = {
      {"k", "experts a token", 2.0},
      {"norm_topk_prob", "1: weights add up to 1", 1.0}};
  spec.run = [](const Arrays& in, const Params& params) {
    const auto [weights, experts] = moe::topk_gating_softmax(
        in[0],
        value_or(params, "k", 2),
        in.size() > 1 ? std::optional(in[1]) : std::nullopt,
        value_or(params, "norm_topk_prob", 1) != 0);
    return Arrays{weights, experts};
  };
  for (auto& one : spec.cases) {
    const int experts = one.shapes[0].back();
    one.params = {
        {"k", experts == 32 ? 4 : 3}, {"norm_topk_prob", experts > 5}};
    if (experts == 193) {
      one.shapes.push_back({experts});
    }
  }
  for (auto& one : spec.bench) {
    one.params = {{"k", 4}, {"norm_topk_prob", 1}};
  }
  spec.make_inputs = [](const KernelCase& one, uint64_t seed) {
    Arrays inputs = {normal_values(one.shapes[0], one.dtype, seed)};
    if (one.shapes.size() > 1) {
      // As small as the probabilities that it is added to.
      inputs.push_back(
          normal_values(one.shapes[1], mx::float32, seed + 1) *
          mx::array(0.01f));
    }
    return inputs;
  };
  return spec;
}

} // namespace

void register_gating(Registry& registry) {
  registry.add(topk_spec());
  KernelSpec two = spec_of(
      "top2_gating_softmax",
      "The two best experts and a softmax over them",
      "zmlx::moe::top2_gating_softmax(x)");
  two.run = [](const Arrays& in, const Params&) {
    const auto [weights, experts] = moe::top2_gating_softmax(in[0]);
    return Arrays{weights, experts};
  };
  registry.add(std::move(two));
}

} // namespace zmlx::kernels
