// SPDX-License-Identifier: MIT
#include "zmlx/authoring/bench.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "zmlx/authoring/testing.h"
#include "zmlx/base/clock.h"
#include "zmlx/base/error.h"
#include "zmlx/base/statistics.h"

namespace zmlx::bench {
namespace {

Arrays evaluated(Arrays arrays) {
  mx::eval(arrays);
  return arrays;
}

// Why an implementation cannot be compared, or "".
std::string failure_of(
    const Implementation& one,
    const Implementation& first,
    const Arrays& inputs,
    const Arrays& want) {
  try {
    const std::string why =
        testing::mismatch(evaluated(one.run(inputs)), want, {});
    return why.empty()
        ? ""
        : concat(one.name, " differs from ", first.name, ": ", why);
  } catch (const std::exception& error) {
    return concat(one.name, " threw: ", error.what());
  }
}

std::string failure_of(
    const std::vector<Implementation>& implementations,
    const Arrays& inputs) {
  const Implementation& first = implementations[0];
  Arrays want;
  try {
    want = evaluated(first.run(inputs));
  } catch (const std::exception& error) {
    return concat(first.name, " threw: ", error.what());
  }
  for (const auto& one : implementations) {
    if (&one != &first) {
      std::string why = failure_of(one, first, inputs, want);
      if (!why.empty()) {
        return why;
      }
    }
  }
  return "";
}

CompareRow compare_one(
    const std::vector<Implementation>& implementations,
    const Arrays& inputs,
    const CompareOptions& options) {
  CompareRow row;
  row.shape = inputs[0].shape();
  row.dtype = inputs[0].dtype();
  row.speedup = NAN;
  row.failure = failure_of(implementations, inputs);
  if (!row.failure.empty()) {
    return row;
  }
  std::vector<std::function<Arrays()>> sides;
  for (const auto& one : implementations) {
    sides.push_back([&] { return one.run(inputs); });
  }
  for (const auto& samples :
       time_interleaved(sides, options.warmup, options.iterations)) {
    row.microseconds.push_back(1e6 * median(samples));
    row.spreads.push_back(quartile_spread(samples));
  }
  if (implementations.size() > 1) {
    row.speedup = row.microseconds[0] / row.microseconds[1];
  }
  return row;
}

} // namespace

std::vector<std::vector<double>> time_interleaved(
    const std::vector<std::function<Arrays()>>& sides,
    int warmup,
    int rounds) {
  for (const auto& side : sides) {
    for (int i = 0; i < warmup; ++i) {
      evaluated(side());
    }
  }
  std::vector<std::vector<double>> samples(sides.size());
  interleave(static_cast<int>(sides.size()), rounds, [&](int side, int) {
    const auto which = static_cast<size_t>(side);
    const Stopwatch watch;
    const Arrays results = evaluated(sides[which]());
    samples[which].push_back(watch.seconds());
  });
  return samples;
}

std::vector<CompareRow> compare(
    const std::vector<Implementation>& implementations,
    const std::vector<mx::Shape>& shapes,
    const CompareOptions& options) {
  if (implementations.empty()) {
    invalid("compare", "implementations must be at least 1, got 0.");
  }
  std::vector<CompareRow> rows;
  for (const auto& inputs : normal_inputs(
           "compare", shapes, options.dtypes, options.inputs, options.seed)) {
    rows.push_back(compare_one(implementations, inputs, options));
  }
  return rows;
}

std::string to_text(
    const std::vector<Implementation>& implementations,
    const std::vector<CompareRow>& rows) {
  std::string text = fmt::format("{:<20}{:<10}", "Shape", "Dtype");
  for (const auto& one : implementations) {
    text += fmt::format("{:>16}", one.name + " (us)");
  }
  text += fmt::format("{:>10}\n", "Speedup");
  for (const auto& row : rows) {
    text += fmt::format("{:<20}{:<10}", concat(row.shape), concat(row.dtype));
    if (!row.failure.empty()) {
      text += "  FAILED: " + row.failure + '\n';
      continue;
    }
    for (double time : row.microseconds) {
      text += fmt::format("{:>16.1f}", time);
    }
    text += std::isnan(row.speedup) ? "\n"
                                    : fmt::format("{:>9.2f}x\n", row.speedup);
  }
  return text;
}

} // namespace zmlx::bench
