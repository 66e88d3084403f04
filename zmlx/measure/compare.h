// SPDX-License-Identifier: MIT
// Two measurements of the same thing: did the newer one get worse?
#pragma once

#include <string>
#include <vector>

#include "zmlx/base/json.h"

namespace zmlx::measure {

/// A figure that both files have.
struct Comparison {
  std::string name; // "lfm2 patched decode", "pp512 patched"
  double before = 0, after = 0; // medians; tok/s, GB, or matched tokens
  std::string unit;
  /// The change that must be passed to count, as a part of `before`.
  double noise = 0;
  enum class Verdict { kSame, kBetter, kWorse };
  Verdict verdict = Verdict::kSame;

  double ratio() const {
    return before == after ? 1 : after / before;
  }
};

/// What compare_files() found.
struct CompareResult {
  std::vector<Comparison> comparisons;
  /// What only one of the files has.
  std::vector<std::string> unmatched;
  /// Differences that make speeds hard to compare: device, dtype, versions.
  std::vector<std::string> warnings;

  /// No figure is worse beyond noise.
  bool good() const;
};

/// The rules in one line.
std::string compare_rules();

/// Compares two capsules, or two arrays of bench rows, of the patched side (and
/// for benches every other side too). A speed is worse when the ratio of the
/// medians is below 1 - noise, where noise is the larger of a floor (2 % of
/// decode, 3 % of prefill) and the larger of both sides' quartile spreads; peak
/// memory when it grew by more than 5 % and 50 MB; fidelity when a PASS became
/// a FAIL. Throws FileError for a file that cannot be read, for files of
/// different kinds, and when nothing in them can be compared.
CompareResult compare_files(
    const std::string& before,
    const std::string& after);

/// The comparison of two files already read; the names are for errors.
CompareResult compare_json(
    const Json& before,
    const std::string& before_name,
    const Json& after,
    const std::string& after_name);

/// A table and the verdict.
std::string to_text(const CompareResult& result);

} // namespace zmlx::measure
