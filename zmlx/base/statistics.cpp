// SPDX-License-Identifier: MIT
#include "zmlx/base/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// std::sort with a NaN among its values is undefined, so ask first.
bool unusable(const std::vector<double>& samples) {
  return samples.empty() ||
      std::any_of(samples.begin(), samples.end(), [](double sample) {
           return std::isnan(sample);
         });
}

} // namespace

double quantile(std::vector<double> samples, double fraction) {
  if (!(fraction >= 0 && fraction <= 1)) {
    invalid("quantile", "fraction must be in [0, 1], got ", fraction, '.');
  }
  if (unusable(samples)) {
    return kNaN;
  }
  std::sort(samples.begin(), samples.end());
  const double place = fraction * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, samples.size() - 1);
  const double part = place - static_cast<double>(below);
  // Not a + part * (b - a) alone: with part 0 an infinite b would give NaN.
  return part == 0 ? samples[below]
                   : samples[below] + part * (samples[above] - samples[below]);
}

double median(std::vector<double> samples) {
  return quantile(std::move(samples), 0.5);
}

double mean(const std::vector<double>& samples) {
  if (unusable(samples)) {
    return kNaN;
  }
  return std::accumulate(samples.begin(), samples.end(), 0.0) /
      static_cast<double>(samples.size());
}

double standard_deviation(const std::vector<double>& samples) {
  if (unusable(samples)) {
    return kNaN;
  }
  if (samples.size() == 1) {
    return 0;
  }
  const double center = mean(samples);
  double sum = 0;
  for (double sample : samples) {
    sum += (sample - center) * (sample - center);
  }
  return std::sqrt(sum / static_cast<double>(samples.size() - 1));
}

double spread(const std::vector<double>& samples) {
  if (unusable(samples)) {
    return kNaN;
  }
  const auto [least, most] =
      std::minmax_element(samples.begin(), samples.end());
  return (*most - *least) / median(samples);
}

double quartile_spread(const std::vector<double>& samples) {
  if (unusable(samples)) {
    return kNaN;
  }
  return (quantile(samples, 0.75) - quantile(samples, 0.25)) / median(samples);
}

} // namespace zmlx
