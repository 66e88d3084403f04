// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/router.h"

#include <algorithm>
#include <cmath>

namespace zmlx::moe {

void route(
    const RouterSpec& spec,
    const float* logits,
    const float* bias,
    int experts,
    int* ids,
    float* weights) {
  std::vector<float> scores(logits, logits + experts), biased;
  if (spec.score == RouterSpec::Score::Sigmoid) {
    for (auto& score : scores) {
      score = 1.0f / (1.0f + std::exp(-score));
    }
  } else {
    const float most = *std::max_element(scores.begin(), scores.end());
    float sum = 0;
    for (auto& score : scores) {
      score = std::exp(score - most);
      sum += score;
    }
    for (auto& score : scores) {
      score /= sum;
    }
  }
  biased = scores;
  for (int e = 0; bias && e < experts; ++e) {
    biased[e] += bias[e];
  }
  std::vector<int> order(experts);
  for (int e = 0; e < experts; ++e) {
    order[e] = e;
  }
  // NaN scores count as lowest, so that the order stays strict.
  auto key = [&](int e) {
    return std::isnan(biased[e]) ? -INFINITY : biased[e];
  };
  std::partial_sort(
      order.begin(),
      order.begin() + spec.top_k,
      order.end(),
      [&](int a, int b) { return key(a) != key(b) ? key(a) > key(b) : a < b; });
  const auto& weighed = spec.weight_from_biased ? biased : scores;
  float sum = 0;
  for (int j = 0; j < spec.top_k; ++j) {
    ids[j] = order[j];
    weights[j] = weighed[order[j]];
    sum += weights[j];
  }
  for (int j = 0; j < spec.top_k; ++j) {
    weights[j] =
        (spec.renormalise ? weights[j] / (sum + spec.epsilon) : weights[j]) *
        spec.scale;
  }
}

} // namespace zmlx::moe
