// SPDX-License-Identifier: MIT
// The filters against plain loops in double, and the draws by chi-square.
#include "zmlx/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace zmlx {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

mx::array to_array(const std::vector<double>& values) {
  const std::vector<float> floats(values.begin(), values.end());
  return mx::array(floats.begin(), {int(floats.size())}, mx::float32);
}

std::vector<double> to_vector(mx::array values) {
  values = mx::contiguous(mx::astype(values, mx::float32));
  mx::eval(values);
  const float* data = values.data<float>();
  return {data, data + values.size()};
}

// Which entries a filter keeps.
std::vector<bool> kept(const mx::array& filtered) {
  std::vector<bool> keep;
  for (const double value : to_vector(filtered)) {
    keep.push_back(value != -kInf);
  }
  return keep;
}

std::vector<double> normalised(std::vector<double> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double x : logits) {
    sum += std::exp(x - top);
  }
  for (double& x : logits) {
    x -= top + std::log(sum);
  }
  return logits;
}

std::vector<double> random_logprobs(int count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(0, 2);
  std::vector<double> logits(count);
  for (double& x : logits) {
    x = normal(engine);
  }
  return normalised(logits);
}

// The definitions. Ties with the last one kept stay in top_p.
std::vector<bool> model_top_p(const std::vector<double>& logprobs, double p) {
  double total = 0;
  for (const double x : logprobs) {
    total += std::exp(x);
  }
  std::vector<bool> keep;
  for (const double x : logprobs) {
    double above = 0;
    for (const double y : logprobs) {
      above += y > x ? std::exp(y) : 0;
    }
    keep.push_back(above < p * total);
  }
  return keep;
}

std::vector<bool> model_min_p(const std::vector<double>& logprobs, double p) {
  const double top = *std::max_element(logprobs.begin(), logprobs.end());
  std::vector<bool> keep;
  for (const double x : logprobs) {
    keep.push_back(std::exp(x) >= p * std::exp(top));
  }
  return keep;
}

std::vector<bool> model_top_k(const std::vector<double>& logprobs, int k) {
  std::vector<bool> keep;
  for (const double x : logprobs) {
    keep.push_back(
        std::count_if(logprobs.begin(), logprobs.end(), [&](double y) {
          return y > x;
        }) < k);
  }
  return keep;
}

TEST(SamplerFilters, KeepWhatTheirDefinitionsKeep) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const auto logprobs = random_logprobs(100, seed);
    const mx::array x = to_array(logprobs);
    for (const double p : {0.01, 0.3, 0.9, 0.999}) {
      EXPECT_EQ(kept(keep_top_p(x, p)), model_top_p(logprobs, p))
          << "top_p " << p << " seed " << seed;
      EXPECT_EQ(kept(keep_min_p(x, p)), model_min_p(logprobs, p))
          << "min_p " << p << " seed " << seed;
    }
    for (const int k : {1, 2, 50, 99}) {
      EXPECT_EQ(kept(keep_top_k(x, k)), model_top_k(logprobs, k))
          << "top_k " << k << " seed " << seed;
    }
  }
}

TEST(SamplerFilters, LeaveWhatTheyKeepUnchanged) {
  const auto logprobs = random_logprobs(50, 3);
  const mx::array x = to_array(logprobs);
  const auto before = to_vector(x);
  for (const mx::array& y :
       {keep_top_p(x, 0.8f), keep_min_p(x, 0.1f), keep_top_k(x, 7)}) {
    const auto after = to_vector(y);
    for (size_t i = 0; i < after.size(); ++i) {
      EXPECT_TRUE(after[i] == -kInf || after[i] == before[i]);
    }
  }
}

TEST(SamplerFilters, KeepEqualsInTopPAndExactlyKInTopK) {
  const auto even = normalised(std::vector<double>(8, 0.0));
  EXPECT_EQ(kept(keep_top_p(to_array(even), 0.1f)), std::vector<bool>(8, true));
  const auto keep = kept(keep_top_k(to_array(even), 3));
  EXPECT_EQ(std::count(keep.begin(), keep.end(), true), 3);
}

TEST(SamplerFilters, AcceptWhatAnEarlierFilterDropped) {
  const mx::array x = to_array({std::log(0.6), -kInf, std::log(0.3), -kInf});
  EXPECT_EQ(
      kept(keep_top_p(x, 0.99f)),
      (std::vector<bool>{true, false, true, false}));
  EXPECT_EQ(
      kept(keep_min_p(x, 0.6f)),
      (std::vector<bool>{true, false, false, false}));
  EXPECT_EQ(
      kept(keep_top_k(x, 1)), (std::vector<bool>{true, false, false, false}));
}

TEST(Sampler, TakesTheLowestOfEqualsWhenGreedy) {
  const Sampler greedy;
  EXPECT_EQ(greedy(to_array({0, 3, 1, 3, 3}), 0).item<uint32_t>(), 1u);
  EXPECT_EQ(
      greedy(to_array(std::vector<double>(1000, 2)), 5).item<uint32_t>(), 0u);
  EXPECT_EQ(greedy(to_array({-kInf, -kInf, -9}), 0).item<uint32_t>(), 2u);
}

// Counts of draws over steps 0..count-1.
std::vector<int>
draws(const SamplerOptions& options, const mx::array& logits, int count) {
  const Sampler sampler(options);
  std::vector<mx::array> tokens;
  for (int step = 0; step < count; ++step) {
    tokens.push_back(sampler(logits, step));
  }
  mx::eval(tokens);
  std::vector<int> counts(logits.size());
  for (auto& token : tokens) {
    ++counts.at(token.item<uint32_t>());
  }
  return counts;
}

// 0.1% quantile of chi-square for these degrees of freedom.
const std::map<int, double> kChiSquare999 = {
    {2, 13.8155},
    {4, 18.4668},
    {7, 24.3219}};

void expect_distribution(
    const std::vector<int>& counts,
    const std::vector<double>& probs) {
  const int total = std::accumulate(counts.begin(), counts.end(), 0);
  double chi_square = 0;
  int cells = 0;
  for (size_t i = 0; i < probs.size(); ++i) {
    if (probs[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i << " must be filtered";
      continue;
    }
    ++cells;
    const double expected = probs[i] * total;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, kChiSquare999.at(cells - 1));
}

TEST(Sampler, DrawsTheSoftmaxAtATemperature) {
  const std::vector<double> logits = {1, 0.5, -1, 0, 2, -0.5, 0.25, 1.5};
  for (const double temperature : {0.7, 1.0, 1.6}) {
    std::vector<double> scaled = logits, probs;
    for (double& x : scaled) {
      x /= temperature;
    }
    for (const double x : normalised(scaled)) {
      probs.push_back(std::exp(x));
    }
    SamplerOptions options;
    options.temperature = temperature;
    options.seed = 11;
    expect_distribution(draws(options, to_array(logits), 2000), probs);
  }
}

// top_p keeps 5 of 8, min_p 4 of these, top_k 3; the temperature comes last.
TEST(Sampler, FiltersInOrderThenScales) {
  const std::vector<double> probs = {
      0.05, 0.30, 0.02, 0.20, 0.15, 0.04, 0.16, 0.08};
  std::vector<double> logits, expected(8, 0.0);
  for (const double p : probs) {
    logits.push_back(std::log(p) + 3);
  }
  SamplerOptions options;
  options.temperature = 2;
  options.seed = 5;
  options.top_p = 0.85f;
  const auto sum_of_roots = [&](std::vector<int> ids) {
    double sum = 0;
    for (const int i : ids) {
      sum += std::sqrt(probs[i]);
    }
    expected.assign(8, 0.0);
    for (const int i : ids) {
      expected[i] = std::sqrt(probs[i]) / sum;
    }
  };
  sum_of_roots({1, 3, 4, 6, 7});
  expect_distribution(draws(options, to_array(logits), 2500), expected);
  options.min_p = 0.4f;
  options.top_k = 3;
  sum_of_roots({1, 3, 6});
  expect_distribution(draws(options, to_array(logits), 2500), expected);
}

TEST(Sampler, DependsOnSeedAndStepAlone) {
  const mx::array logits = to_array(std::vector<double>(1000, 0.0));
  SamplerOptions options;
  options.temperature = 1;
  options.seed = 42;
  const Sampler one(options), two(options);
  mx::random::seed(1);
  const uint32_t at_three = one(logits, 3).item<uint32_t>();
  mx::random::seed(2);
  two(logits, 0);
  EXPECT_EQ(two(logits, 3).item<uint32_t>(), at_three);
  EXPECT_NE(two(logits, 4).item<uint32_t>(), at_three);
  options.seed = 43;
  EXPECT_NE(Sampler(options)(logits, 3).item<uint32_t>(), at_three);
}

TEST(Sampler, TreatsLimitsOfTheFiltersAsOff) {
  const mx::array logits = to_array({0, 1, 2, 3});
  SamplerOptions plain;
  plain.temperature = 1;
  SamplerOptions off = plain;
  off.top_p = 1;
  off.top_k = 4;
  EXPECT_EQ(draws(plain, logits, 50), draws(off, logits, 50));
  off.top_k = 1 << 30;
  EXPECT_EQ(draws(plain, logits, 50), draws(off, logits, 50));
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  const float nan = std::nanf("");
  const auto refuses = [](SamplerOptions options) {
    EXPECT_THROW(Sampler{options}, std::invalid_argument);
  };
  for (const float bad : {-0.1f, nan, float(kInf)}) {
    refuses({.temperature = bad});
  }
  for (const float bad : {-0.1f, 1.1f, nan}) {
    refuses({.top_p = bad});
    refuses({.min_p = bad});
  }
  refuses({.top_k = -1});
}

} // namespace
} // namespace zmlx
