// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/router.h"

#include <algorithm>
#include <cmath>

#include "zmlx/base/error.h"

namespace zmlx::moe {
namespace {

using Score = RouterSpec::Score;

// NaN counts as lowest, so that the order stays strict.
float sort_key(float score) {
  return std::isnan(score) ? -INFINITY : score;
}

/// The places of the `count` largest keys, best first, ties to the lowest.
std::vector<int> largest(const std::vector<float>& keys, int count) {
  std::vector<int> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<int>(i);
  }
  std::partial_sort(
      order.begin(), order.begin() + count, order.end(), [&](int a, int b) {
        const float x = sort_key(keys[a]), y = sort_key(keys[b]);
        return x != y ? x > y : a < b;
      });
  order.resize(count);
  return order;
}

void softmax(std::vector<float>& x) {
  const float most = *std::max_element(x.begin(), x.end());
  float sum = 0;
  for (auto& value : x) {
    value = std::exp(value - most);
    sum += value;
  }
  for (auto& value : x) {
    value /= sum;
  }
}

/// Sets scores outside the best groups to 0.
void keep_best_groups(const RouterSpec& spec, std::vector<float>& scores) {
  const size_t size = scores.size() / spec.groups;
  std::vector<float> group_scores;
  for (int g = 0; g < spec.groups; ++g) {
    std::vector<float> own(
        scores.begin() + g * size, scores.begin() + (g + 1) * size);
    const auto best = largest(own, std::min<int>(2, static_cast<int>(size)));
    group_scores.push_back(
        spec.group_score == RouterSpec::GroupScore::Largest || best.size() < 2
            ? own[best[0]]
            : own[best[0]] + own[best[1]]);
  }
  std::vector<bool> kept(spec.groups);
  for (const int g : largest(group_scores, spec.chosen_groups)) {
    kept[g] = true;
  }
  for (size_t e = 0; e < scores.size(); ++e) {
    scores[e] = kept[e / size] ? scores[e] : 0.0f;
  }
}

/// The softmax of the best of the logits that are not taken among those near
/// it; then it is taken.
float sparse_weight(
    const RouterSpec& spec,
    const float* logits,
    int best,
    std::vector<bool>& taken) {
  const float top = logits[best];
  float sum = 0;
  for (size_t e = 0; e < taken.size(); ++e) {
    const float size = std::max(std::abs(logits[e]), top);
    if (!taken[e] && !((top - logits[e]) / size > 2 * spec.jitter)) {
      sum += std::exp(logits[e] - top);
    }
  }
  taken[best] = true;
  return 1 / sum;
}

} // namespace

void route(
    const RouterSpec& spec,
    const float* logits,
    const float* bias,
    int experts,
    int* ids,
    float* weights) {
  std::vector<float> scores(logits, logits + experts);
  if (spec.score == Score::Sigmoid) {
    for (auto& score : scores) {
      score = 1.0f / (1.0f + std::exp(-score));
    }
  } else if (spec.score == Score::Softmax) {
    softmax(scores);
  }
  std::vector<float> biased = scores;
  if (spec.select_on_logits) {
    biased.assign(logits, logits + experts);
  }
  for (int e = 0; bias && e < experts; ++e) {
    biased[e] += bias[e];
  }
  if (spec.groups > 1) {
    keep_best_groups(spec, biased);
  }
  const auto chosen = largest(biased, spec.top_k);
  std::vector<bool> taken(experts);
  std::vector<float> given;
  for (const int e : chosen) {
    given.push_back(
        spec.score == Score::SparseMixer ? sparse_weight(spec, logits, e, taken)
                                         : scores[e]);
    if (spec.weight_from_biased && bias) {
      given.back() += bias[e];
    }
  }
  if (spec.score == Score::ChosenSoftmax) {
    softmax(given);
  }
  float sum = 0;
  for (const float weight : given) {
    sum += weight;
  }
  const float divisor = !spec.renormalise ? 1
      : spec.epsilon_is_floor             ? std::max(sum, spec.epsilon)
                                          : sum + spec.epsilon;
  for (int j = 0; j < spec.top_k; ++j) {
    ids[j] = chosen[j];
    weights[j] = given[j] / divisor * spec.scale;
  }
}

std::string why_not_a_router(const RouterSpec& spec, int experts) {
  if (spec.top_k < 1 || spec.top_k > experts) {
    return concat("top_k must be 1 to ", experts, ", got ", spec.top_k);
  }
  if (spec.groups < 1 || experts % spec.groups != 0) {
    return concat(
        "groups must divide ", experts, " experts, got ", spec.groups);
  }
  if (spec.chosen_groups < 1 || spec.chosen_groups > spec.groups) {
    return concat(
        "chosen groups must be 1 to ",
        spec.groups,
        ", got ",
        spec.chosen_groups);
  }
  return "";
}

} // namespace zmlx::moe
