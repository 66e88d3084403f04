// SPDX-License-Identifier: MIT
// What a handful of timed samples says: order statistics, mean and spread.
#pragma once

#include <cstddef>
#include <vector>

namespace zmlx {

// Every function returns NaN when there are no samples or one of them is NaN:
// a failed measurement must not turn into a good-looking figure.

/// The middle sample, or the mean of the two middle ones.
double median(std::vector<double> samples);

/// The quantile at `fraction` in [0, 1], linear between order statistics
/// (NumPy's default). Throws std::invalid_argument for other fractions.
double quantile(std::vector<double> samples, double fraction);

/// The arithmetic mean.
double mean(const std::vector<double>& samples);

/// The sample standard deviation (divisor n - 1); 0 for one sample.
double standard_deviation(const std::vector<double>& samples);

/// The distance from worst to best, as a part of the median.
double spread(const std::vector<double>& samples);

/// The distance between the quartiles, as a part of the median: a spread that
/// one interrupted sample does not move.
double quartile_spread(const std::vector<double>& samples);

} // namespace zmlx
