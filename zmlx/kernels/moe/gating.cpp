// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/gating.h"

#include "zmlx/base/error.h"
#include "zmlx/kernels/moe/router.h"

namespace zmlx::moe {
namespace {

std::pair<mx::array, mx::array> gated(
    const char* op,
    const mx::array& x,
    int k,
    const std::optional<mx::array>& bias,
    bool norm) {
  const int experts = x.ndim() > 0 ? x.shape(-1) : 0;
  if (k < 1 || k > experts) {
    invalid(
        op,
        "k must be 1 to the experts in x's last axis, got ",
        k,
        " and x ",
        x.shape(),
        '.');
  }
  RouterSpec spec;
  spec.top_k = k;
  spec.renormalise = norm;
  if (norm && !bias) {
    spec.score = RouterSpec::Score::ChosenSoftmax;
    spec.renormalise = false;
  }
  spec.weight_from_biased = bias.has_value();
  spec.epsilon = 1e-20f;
  return route(x, spec, bias);
}

} // namespace

std::pair<mx::array, mx::array> topk_gating_softmax(
    const mx::array& x,
    int k,
    const std::optional<mx::array>& expert_bias,
    bool norm_topk_prob) {
  return gated("topk_gating_softmax", x, k, expert_bias, norm_topk_prob);
}

std::pair<mx::array, mx::array> top2_gating_softmax(const mx::array& x) {
  return gated("top2_gating_softmax", x, 2, std::nullopt, true);
}

} // namespace zmlx::moe
