// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/route_spec.h"

#include "zmlx/kernels/common/reference.h"
#include "zmlx/kernels/moe/router.h"

namespace zmlx::kernels {
namespace {

using Score = moe::RouterSpec::Score;
using reference::whole;

moe::RouterSpec router_of(const Params& params) {
  moe::RouterSpec router;
  router.score = static_cast<Score>(whole(params, "score"));
  router.top_k = whole(params, "top_k");
  router.groups = whole(params, "groups");
  router.chosen_groups = (router.groups + 1) / 2;
  router.renormalise = router.score == Score::Sigmoid;
  router.epsilon = 1e-6f;
  router.scale = 1.5f;
  return router;
}

mx::array kept_groups(const mx::array& scores, const moe::RouterSpec& router) {
  const mx::array grouped = mx::unflatten(scores, -1, {router.groups, -1});
  const mx::array best = mx::where(
      reference::ranks(grouped) < mx::array(2),
      grouped,
      mx::zeros_like(grouped));
  const mx::array kept =
      reference::ranks(mx::sum(best, -1)) < mx::array(router.chosen_groups);
  return mx::flatten(
      mx::where(
          mx::expand_dims(kept, -1), grouped, reference::number(0, scores)),
      -2,
      -1);
}

Arrays run(const Arrays& in, const Params& params) {
  const auto [weights, ids] = moe::route(in[0], router_of(params), in[1]);
  return {weights};
}

Arrays composed(const Arrays& in, const Params& params) {
  const auto router = router_of(params);
  const mx::array x =
      in[0].dtype() == mx::float64 ? in[0] : mx::astype(in[0], mx::float32);
  mx::array scores = mx::stop_gradient(
      router.score == Score::Softmax       ? reference::softmax(x)
          : router.score == Score::Sigmoid ? reference::sigmoid(x)
                                           : x);
  scores = scores + mx::stop_gradient(mx::astype(in[1], x.dtype()));
  if (router.groups > 1) {
    scores = kept_groups(scores, router);
  }
  const mx::array chosen = reference::best(scores, router.top_k);
  return {moe::weights_of(x, router, in[1], mx::stop_gradient(chosen))};
}

Traffic traffic(const Arrays& in, const Arrays& out) {
  Traffic traffic;
  traffic.bytes = static_cast<double>(
      in[0].nbytes() + in[1].nbytes() + 2 * out[0].nbytes());
  traffic.flops = 4.0 * static_cast<double>(in[0].size());
  return traffic;
}

KernelCase case_of(
    mx::Dtype dtype,
    mx::Shape logits,
    Score score,
    int top_k,
    int groups = 1) {
  const int experts = logits.back();
  return {
      dtype,
      {std::move(logits), {experts}},
      {{"score", static_cast<double>(score)},
       {"top_k", top_k},
       {"groups", groups}}};
}

} // namespace

KernelSpec route_spec() {
  std::vector<KernelCase> cases;
  for (const auto dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    cases.push_back(case_of(dtype, {3, 40}, Score::Softmax, 4));
    cases.push_back(case_of(dtype, {2, 3, 32}, Score::Sigmoid, 3, 4));
    cases.push_back(case_of(dtype, {5, 7}, Score::ChosenSoftmax, 7));
  }
  cases.push_back(case_of(mx::float32, {1, 2}, Score::Sigmoid, 2));
  return {
      .family = "moe",
      .name = "route",
      .summary = "A router's choice of experts and their weights",
      .call = "zmlx::moe::route(logits, router, bias)",
      .inputs =
          {{"logits", "(..., experts) float"},
           {"bias", "(experts) float, or none"}},
      .outputs = {{"weights", "(..., top_k) float32, best first"}},
      .params =
          {{"score", "0: softmax, 1: sigmoid, 2: softmax of the chosen"},
           {"top_k", "experts a token, 1 to all"},
           {"groups", "equal groups of experts, of which half are open"}},
      .run = run,
      .reference = composed,
      .gradient = {0},
      .cases = std::move(cases),
      .bench =
          {case_of(mx::float32, {1, 128}, Score::Softmax, 8),
           case_of(mx::float32, {512, 128}, Score::Softmax, 8),
           case_of(mx::float32, {512, 256}, Score::Sigmoid, 8, 8)},
      .traffic = traffic,
      .terms = [](const KernelCase& one) { return one.shapes[0].back(); },
      .specials = Specials::kNan,
  };
}

} // namespace zmlx::kernels
