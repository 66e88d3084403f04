// SPDX-License-Identifier: MIT
// The router: every row of its table against plain loops in double, and the
// kernel in Metal's dialect, run on the host, against the CPU's own.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "zmlx/kernels/moe/route_kernel.h"

namespace zmlx::moe {
namespace {

using Score = RouterSpec::Score;

struct Row {
  const char* name;
  RouterSpec spec;
  bool biased = false;
};

std::vector<Row> rows() {
  using Group = RouterSpec::GroupScore;
  return {
      {"qwen3_moe", {.top_k = 4}},
      {"qwen2_moe", {.top_k = 4, .renormalise = false}},
      {"lfm2_moe",
       {.score = Score::Sigmoid, .top_k = 4, .epsilon = 1e-6f, .scale = 1.5f},
       true},
      {"lfm2_moe of older files",
       {.top_k = 4, .weight_from_biased = true, .epsilon = 1e-20f},
       true},
      {"mixtral",
       {.score = Score::ChosenSoftmax, .top_k = 2, .renormalise = false}},
      {"deepseek_v2",
       {.top_k = 6,
        .groups = 8,
        .chosen_groups = 3,
        .group_score = Group::Largest,
        .renormalise = false,
        .scale = 16}},
      {"deepseek_v3",
       {.score = Score::Sigmoid,
        .top_k = 8,
        .groups = 8,
        .chosen_groups = 4,
        .scale = 2.5f},
       true},
      {"ernie4_5_moe",
       {.top_k = 6, .epsilon = 1e-12f, .epsilon_is_floor = true}},
      {"llama4",
       {.score = Score::Sigmoid,
        .top_k = 1,
        .select_on_logits = true,
        .renormalise = false}},
      {"phimoe",
       {.score = Score::SparseMixer,
        .top_k = 2,
        .renormalise = false,
        .jitter = 0.3f}},
  };
}

struct Routed {
  std::vector<double> weights;
  std::vector<int> ids;
};

/// Chosen one by one: the largest that is left, the first of equal ones.
int take_best(std::vector<double>& keys) {
  const auto best = std::max_element(keys.begin(), keys.end());
  const auto at = static_cast<int>(best - keys.begin());
  *best = -INFINITY;
  return at;
}

std::vector<double> scores_of(const RouterSpec& spec, std::vector<double> x) {
  double sum = 0;
  for (double& value : x) {
    value = spec.score == Score::Softmax ? std::exp(value)
        : spec.score == Score::Sigmoid   ? 1 / (1 + std::exp(-value))
                                         : value;
    sum += value;
  }
  for (double& value : x) {
    value /= spec.score == Score::Softmax ? sum : 1;
  }
  return x;
}

void close_groups(const RouterSpec& spec, std::vector<double>& keys) {
  const size_t size = keys.size() / spec.groups;
  std::vector<double> groups;
  for (int g = 0; g < spec.groups; ++g) {
    std::vector<double> own(
        keys.begin() + g * size, keys.begin() + (g + 1) * size);
    std::sort(own.rbegin(), own.rend());
    groups.push_back(
        spec.group_score == RouterSpec::GroupScore::Largest ? own[0]
                                                            : own[0] + own[1]);
  }
  std::vector<bool> open(groups.size());
  for (int i = 0; i < spec.chosen_groups; ++i) {
    open[take_best(groups)] = true;
  }
  for (size_t e = 0; e < keys.size(); ++e) {
    keys[e] = open[e / size] ? keys[e] : 0;
  }
}

Routed in_double(
    const RouterSpec& spec,
    const std::vector<double>& logits,
    const std::vector<double>& bias) {
  const auto scores = scores_of(spec, logits);
  auto keys = spec.select_on_logits ? logits : scores;
  for (size_t e = 0; e < bias.size(); ++e) {
    keys[e] += bias[e];
  }
  if (spec.groups > 1) {
    close_groups(spec, keys);
  }
  Routed routed;
  std::vector<bool> gone(logits.size());
  for (int j = 0; j < spec.top_k; ++j) {
    const int e = take_best(keys);
    double weight =
        scores[e] + (spec.weight_from_biased && !bias.empty() ? bias[e] : 0);
    if (spec.score == Score::ChosenSoftmax) {
      weight = std::exp(logits[e]);
    }
    if (spec.score == Score::SparseMixer) {
      double sum = 0;
      for (size_t o = 0; o < logits.size(); ++o) {
        const double far =
            (logits[e] - logits[o]) / std::max(std::abs(logits[o]), logits[e]);
        sum += gone[o] || far > 2 * double{spec.jitter}
            ? 0
            : std::exp(logits[o] - logits[e]);
      }
      weight = 1 / sum;
      gone[e] = true;
    }
    routed.ids.push_back(e);
    routed.weights.push_back(weight);
  }
  const double sum =
      std::accumulate(routed.weights.begin(), routed.weights.end(), 0.0);
  for (double& weight : routed.weights) {
    if (spec.score == Score::ChosenSoftmax) {
      weight /= sum;
    } else if (spec.renormalise) {
      weight /= spec.epsilon_is_floor ? std::max(sum, double{spec.epsilon})
                                      : sum + spec.epsilon;
    }
    weight *= spec.scale;
  }
  return routed;
}

std::vector<double> doubles(const mx::array& x, int row) {
  const auto count = static_cast<size_t>(x.shape(-1));
  const float* values = x.data<float>() + static_cast<size_t>(row) * count;
  return {values, values + count};
}

void expect_routed(
    const Row& row,
    const mx::array& logits,
    const std::optional<mx::array>& bias,
    const std::pair<mx::array, mx::array>& got) {
  mx::eval(got.first, got.second);
  for (int t = 0; t < logits.shape(0); ++t) {
    const auto want = in_double(
        row.spec,
        doubles(logits, t),
        bias ? doubles(*bias, 0) : std::vector<double>());
    for (int j = 0; j < row.spec.top_k; ++j) {
      const int at = t * row.spec.top_k + j;
      EXPECT_EQ(
          got.second.data<uint32_t>()[at], static_cast<uint32_t>(want.ids[j]))
          << row.name << " token " << t << " place " << j;
      EXPECT_NEAR(
          got.first.data<float>()[at],
          want.weights[j],
          2e-6 * std::max(1.0, std::abs(want.weights[j])))
          << row.name << " token " << t << " place " << j;
    }
  }
}

struct Inputs {
  mx::array logits =
      mx::random::normal({9, 64}, mx::float32, mx::random::key(1));
  mx::array bias = mx::random::normal({64}, mx::float32, mx::random::key(2)) *
      mx::array(0.3f);
  Inputs() {
    mx::eval(logits, bias);
  }
  std::optional<mx::array> bias_of(const Row& row) const {
    return row.biased ? std::optional(bias) : std::nullopt;
  }
};

TEST(Router, GivesTiesToTheLowestIndexAndNanTheLastPlace) {
  RouterSpec spec;
  spec.top_k = 3;
  const std::vector<float> equal(8, 0.5f);
  int ids[3];
  float weights[3];
  route(spec, equal.data(), nullptr, 8, ids, weights);
  EXPECT_EQ((std::vector<int>(ids, ids + 3)), (std::vector<int>{0, 1, 2}));
  EXPECT_FLOAT_EQ(weights[0], 1.0f / 3);
  spec.score = RouterSpec::Score::Sigmoid;
  const float logits[] = {0.1f, NAN, 0.3f, 0.2f};
  route(spec, logits, nullptr, 4, ids, weights);
  EXPECT_EQ((std::vector<int>(ids, ids + 3)), (std::vector<int>{2, 3, 0}));
}

TEST(Router, KeepsTheBiasOutOfTheWeightUnlessToldOtherwise) {
  RouterSpec spec;
  spec.score = RouterSpec::Score::Sigmoid;
  spec.renormalise = false;
  const float logits[] = {2, 0, -1}, bias[] = {0, 0, 5};
  int id;
  float weight;
  route(spec, logits, bias, 3, &id, &weight);
  EXPECT_EQ(id, 2);
  EXPECT_NEAR(weight, 1 / (1 + std::exp(1.0)), 1e-6);
  spec.weight_from_biased = true;
  route(spec, logits, bias, 3, &id, &weight);
  EXPECT_NEAR(weight, 5 + 1 / (1 + std::exp(1.0)), 1e-5);
}

TEST(Route, MatchesEveryRowOfTheTableInDouble) {
  const Inputs in;
  for (const auto& row : rows()) {
    const auto bias = in.bias_of(row);
    expect_routed(row, in.logits, bias, route(in.logits, row.spec, bias));
  }
}

TEST(Route, HasAKernelInMetalsDialectThatChoosesTheSame) {
  const Inputs in;
  for (const auto& row : rows()) {
    const auto bias = in.bias_of(row);
    expect_routed(
        row, in.logits, bias, route_by_kernel(in.logits, row.spec, bias));
  }
}

// So that one primitive can stand for both results.
TEST(Route, KeepsTheAxesOfTokensInTheKernel) {
  const auto logits = mx::reshape(mx::sin(mx::arange(180.0)), {2, 3, 30});
  const RouterSpec spec{.top_k = 4};
  const auto [weights, ids] = route_by_kernel(logits, spec, std::nullopt);
  const auto [want, best] = route(logits, spec);
  EXPECT_EQ(weights.primitive_id(), ids.primitive_id());
  EXPECT_TRUE(mx::array_equal(ids, best).item<bool>());
  EXPECT_TRUE(mx::allclose(weights, want, 1e-6).item<bool>());
}

TEST(Route, GivesTiesToTheLowestIndexInTheKernelToo) {
  const auto logits = mx::zeros({2, 70});
  const RouterSpec spec{
      .score = Score::Sigmoid, .top_k = 5, .groups = 7, .chosen_groups = 2};
  for (const auto& [weights, ids] :
       {route(logits, spec), route_by_kernel(logits, spec, std::nullopt)}) {
    EXPECT_TRUE(
        mx::array_equal(ids, mx::broadcast_to(mx::arange(5), {2, 5}))
            .item<bool>());
    EXPECT_TRUE(mx::allclose(weights, mx::full({2, 5}, 0.2f)).item<bool>());
  }
}

TEST(Route, TakesOneTokenWithoutAnAxisAndNamesWhatDoesNotFit) {
  const auto [weights, ids] = route(mx::arange(6.0), {.top_k = 2});
  EXPECT_EQ(weights.shape(), mx::Shape{2});
  EXPECT_TRUE(mx::array_equal(ids, mx::array({5, 4})).item<bool>());
  const auto message = [](const RouterSpec& spec, const mx::Shape& bias) {
    try {
      route(mx::zeros({2, 6}), spec, mx::zeros(bias));
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message({.top_k = 7}, {6}), "[route] top_k must be 1 to 6, got 7.");
  EXPECT_EQ(
      message({.groups = 4}, {6}),
      "[route] groups must divide 6 experts, got 4.");
  EXPECT_EQ(
      message({}, {5}), "[route] bias must be (6) float, got (5) of float32.");
}

TEST(Route, TakesNoTokens) {
  const auto [weights, ids] = route(mx::zeros({0, 8}), {.top_k = 2});
  EXPECT_EQ(weights.shape(), (mx::Shape{0, 2}));
  EXPECT_EQ(ids.shape(), (mx::Shape{0, 2}));
}

TEST(Route, DifferentiatesTheSparseMixer) {
  const auto logits = mx::array({1.0f, 0.9f, -0.5f, 0.8f}, {1, 4});
  const RouterSpec spec{
      .score = Score::SparseMixer,
      .top_k = 2,
      .renormalise = false,
      .jitter = 0.3f};
  const auto gradient = mx::vjp(
      [&](const std::vector<mx::array>& x) {
        return std::vector<mx::array>{route(x[0], spec).first};
      },
      {logits},
      {mx::array({1.0f, 0.0f}, {1, 2})});
  // The first weight is the softmax of 1.0 among 1.0, 0.9 and 0.8.
  const double sum = 1 + std::exp(-0.1) + std::exp(-0.2), p = 1 / sum;
  const std::vector<double> want = {
      p * (1 - p), -p * p * std::exp(-0.1), 0, -p * p * std::exp(-0.2)};
  for (int e = 0; e < 4; ++e) {
    auto got = mx::take(gradient.second[0], e, 1);
    mx::eval(got);
    EXPECT_NEAR(got.item<float>(), want[static_cast<size_t>(e)], 1e-6);
  }
}

TEST(Route, PassesGradientsToABiasThatIsPartOfTheWeights) {
  const Inputs in;
  const RouterSpec spec{
      .top_k = 3, .weight_from_biased = true, .renormalise = false};
  const auto gradients = mx::vjp(
      [&](const std::vector<mx::array>& x) {
        return std::vector<mx::array>{route(x[0], spec, x[1]).first};
      },
      {in.logits, in.bias},
      {mx::ones({9, 3})});
  // Each of 27 choices adds its bias once.
  EXPECT_NEAR(mx::sum(gradients.second[1]).item<float>(), 27, 1e-4);
}

} // namespace
} // namespace zmlx::moe
