// SPDX-License-Identifier: MIT
#include "zmlx/measure/ladder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "zmlx/base/error.h"
#include "zmlx/base/statistics.h"
#include "zmlx/measure/stepper.h"

namespace zmlx::measure {
namespace {

void check_lengths(size_t first, size_t second) {
  if (first != second || first < 2) {
    invalid(
        "ladder",
        "both sides must have the same number of logits, at least 2,",
        " got ",
        first,
        " and ",
        second,
        '.');
  }
}

// NaN and +inf poison a softmax; -inf is a token that cannot come.
bool usable(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(), [](float logit) {
    return logit < std::numeric_limits<float>::infinity();
  });
}

double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) {
    sum += std::exp(logit - top);
  }
  return top + std::log(sum);
}

// The most likely token other than `best`.
int runner_up(std::span<const float> logits, int best) {
  int next = best == 0 ? 1 : 0;
  for (int i = 0; i < static_cast<int>(logits.size()); ++i) {
    if (i != best && logits[i] > logits[next]) {
      next = i;
    }
  }
  return next;
}

double squared_distance(
    std::span<const float> first,
    std::span<const float> second) {
  double sum = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    // Equal infinities are no distance; their difference would be NaN.
    const double difference =
        first[i] == second[i] ? 0.0 : double{first[i]} - second[i];
    sum += difference * difference;
  }
  return sum;
}

} // namespace

double divergence(
    std::span<const float> reference,
    std::span<const float> other) {
  check_lengths(reference.size(), other.size());
  if (!usable(reference) || !usable(other)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double reference_sum = log_sum_exp(reference);
  const double other_sum = log_sum_exp(other);
  double sum = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = reference[i] - reference_sum;
    const double p = std::exp(log_p);
    if (p > 0) {
      sum += p * (log_p - (other[i] - other_sum));
    }
  }
  // Rounding can leave a hair below the bound that the sum has in theory.
  return std::max(sum, 0.0);
}

StepDifference compare_step(
    std::span<const float> stock,
    std::span<const float> patched) {
  check_lengths(stock.size(), patched.size());
  StepDifference difference;
  difference.bitwise_equal =
      std::memcmp(stock.data(), patched.data(), stock.size_bytes()) == 0;
  difference.finite = usable(stock) && usable(patched);
  difference.stock_token = most_likely(stock);
  difference.patched_token =
      difference.bitwise_equal ? difference.stock_token : most_likely(patched);
  difference.margin = double{stock[difference.stock_token]} -
      stock[runner_up(stock, difference.stock_token)];
  difference.kld = difference.bitwise_equal && difference.finite
      ? 0.0
      : divergence(stock, patched);
  return difference;
}

void Closeness::add(
    int prompt,
    int step,
    const StepDifference& difference,
    int oracle_token) {
  ++steps;
  equal_steps += difference.bitwise_equal;
  unusable_steps += !difference.finite;
  klds.push_back(difference.kld);
  if (difference.stock_token != difference.patched_token) {
    flips.push_back(
        {prompt,
         step,
         difference.stock_token,
         difference.patched_token,
         difference.margin,
         oracle_token});
  }
}

double Closeness::mean_kld() const {
  return mean(klds);
}

double Closeness::kld_quantile(double fraction) const {
  return quantile(klds, fraction);
}

double Closeness::max_kld() const {
  return quantile(klds, 1);
}

double Closeness::same_top() const {
  return 1 - static_cast<double>(flips.size()) / static_cast<double>(steps);
}

double Closeness::same_top_error() const {
  const double same = same_top();
  return std::sqrt(same * (1 - same) / static_cast<double>(steps));
}

void OracleErrors::add(
    std::span<const float> oracle,
    std::span<const float> stock,
    std::span<const float> patched) {
  check_lengths(oracle.size(), stock.size());
  check_lengths(oracle.size(), patched.size());
  stock_squares_ += squared_distance(oracle, stock);
  patched_squares_ += squared_distance(oracle, patched);
  logits_ += oracle.size();
  stock_klds_.push_back(divergence(oracle, stock));
  patched_klds_.push_back(divergence(oracle, patched));
  const int best = most_likely(stock);
  for (int other : {runner_up(stock, best), most_likely(oracle)}) {
    const double error = std::abs(
        (double{stock[best]} - stock[other]) -
        (double{oracle[best]} - oracle[other]));
    // A NaN leaves the noise as it is: it excuses no flip.
    margin_noise_ = error > margin_noise_ ? error : margin_noise_;
  }
}

double OracleErrors::stock_rms() const {
  return std::sqrt(stock_squares_ / static_cast<double>(logits_));
}

double OracleErrors::patched_rms() const {
  return std::sqrt(patched_squares_ / static_cast<double>(logits_));
}

double OracleErrors::stock_kld() const {
  return mean(stock_klds_);
}

double OracleErrors::patched_kld() const {
  return mean(patched_klds_);
}

double OracleErrors::kld_difference_error() const {
  std::vector<double> differences(stock_klds_.size());
  for (size_t i = 0; i < differences.size(); ++i) {
    differences[i] = patched_klds_[i] - stock_klds_[i];
  }
  return standard_deviation(differences) /
      std::sqrt(static_cast<double>(differences.size()));
}

} // namespace zmlx::measure
