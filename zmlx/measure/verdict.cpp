// SPDX-License-Identifier: MIT
#include "zmlx/measure/verdict.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

namespace zmlx::measure {
namespace {

using Failures = std::vector<std::string>;

bool passes_alone(const PromptResult& prompt, const Rules& rules) {
  return prompt.identical() && prompt.closeness.mean_kld() <= rules.float32_kld;
}

// The conditions are written so that a NaN breaks the rule.
void check_numbers(const ValidateResult& result, Failures& failures) {
  if (result.closeness.unusable_steps != 0) {
    failures.push_back(
        fmt::format(
            "L2: logits must have no NaN or infinity, {} of {} steps have.",
            result.closeness.unusable_steps,
            result.closeness.steps));
  }
}

void check_repetition(
    const Repetition& repetition,
    const char* what,
    Failures& failures) {
  if (!repetition.good()) {
    failures.push_back(
        fmt::format(
            "Determinism: {} must repeat bit for bit, {} of {} steps differ.",
            what,
            repetition.steps - repetition.equal_steps,
            repetition.steps));
  }
}

void check_float32(
    const ValidateResult& result,
    const Rules& rules,
    Failures& failures) {
  size_t judged = 0, steps = 0;
  double sum = 0;
  for (size_t i = 0; i < result.prompts.size(); ++i) {
    const auto& prompt = result.prompts[i];
    const size_t count = judged_steps(prompt, rules);
    const auto& klds = prompt.closeness.klds;
    sum = std::accumulate(
        klds.begin(), klds.begin() + static_cast<std::ptrdiff_t>(count), sum);
    judged += count;
    steps += klds.size();
    if (!prompt.identical() && count == klds.size()) {
      failures.push_back(
          fmt::format(
              "L1: prompt {} diverges at token {}, where stock's margin is {:.3g}.",
              i + 1,
              prompt.first_divergence,
              prompt.divergence_margin));
    }
  }
  if (2 * judged < steps) {
    failures.push_back(
        fmt::format(
            "L1: half of the steps must come before ties of stock's routers, "
            "{} of {} do.",
            judged,
            steps));
  }
  const double kld = judged == 0 ? 0 : sum / static_cast<double>(judged);
  if (!(kld <= rules.float32_kld)) {
    failures.push_back(
        fmt::format(
            "L2: mean KLD must be at most {:.2g} at float32, got {:.3g}.",
            rules.float32_kld,
            kld));
  }
}

void check_oracle(
    const OracleErrors& oracle,
    const Rules& rules,
    Failures& failures) {
  if (!(oracle.patched_rms() <= rules.oracle_ratio * oracle.stock_rms())) {
    failures.push_back(
        fmt::format(
            "L3: patched's RMS error must be at most {} times stock's {:.3g}, "
            "got {:.3g}.",
            rules.oracle_ratio,
            oracle.stock_rms(),
            oracle.patched_rms()));
  }
  const double bound = rules.oracle_ratio * oracle.stock_kld() +
      2 * oracle.kld_difference_error();
  if (!(oracle.patched_kld() <= bound)) {
    failures.push_back(
        fmt::format(
            "L3: patched's mean KLD to the oracle must be at most {:.3g} "
            "(stock's is {:.3g}), got {:.3g}.",
            bound,
            oracle.stock_kld(),
            oracle.patched_kld()));
  }
}

void check_narrow(
    const ValidateResult& result,
    const Rules& rules,
    Failures& failures) {
  const OracleErrors& oracle = *result.oracle;
  check_oracle(oracle, rules, failures);
  const double bound = std::max(rules.narrow_kld, 2 * oracle.stock_kld());
  const double kld = result.closeness.mean_kld();
  if (!(kld <= bound)) {
    failures.push_back(
        fmt::format(
            "L2: mean KLD must be at most {:.3g}, got {:.3g}.", bound, kld));
  }
  for (const auto& flip : result.closeness.flips) {
    if (!flip.oracle_agrees() && !(flip.margin <= oracle.margin_noise())) {
      failures.push_back(
          fmt::format(
              "L2: prompt {} flips at token {} over stock's margin of {:.3g}, "
              "above the noise of {:.3g}.",
              flip.prompt + 1,
              flip.step,
              flip.margin,
              oracle.margin_noise()));
    }
  }
}

} // namespace

int departure(const PromptResult& prompt, const Rules& rules) {
  if (passes_alone(prompt, rules)) {
    return -1;
  }
  const auto& klds = prompt.closeness.klds;
  const auto& flips = prompt.closeness.flips;
  const int flip =
      flips.empty() ? static_cast<int>(klds.size()) : flips.front().step;
  for (int step = 0; step < static_cast<int>(klds.size()); ++step) {
    if (step == flip ||
        !(klds[static_cast<size_t>(step)] <= rules.float32_kld)) {
      return step; // a NaN parts
    }
  }
  return -1;
}

size_t judged_steps(const PromptResult& prompt, const Rules& rules) {
  const bool tied = prompt.tie && prompt.tie->gap <= rules.router_tie &&
      !passes_alone(prompt, rules);
  return tied ? static_cast<size_t>(prompt.tie->step)
              : prompt.closeness.klds.size();
}

std::vector<std::string> broken_rules(
    const ValidateResult& result,
    const Rules& rules) {
  Failures failures;
  check_numbers(result, failures);
  check_repetition(result.repeat, "a second patched run", failures);
  if (result.one_thread) {
    check_repetition(*result.one_thread, "a run on one thread", failures);
  }
  if (result.oracle) {
    check_narrow(result, rules, failures);
  } else {
    check_float32(result, rules, failures);
  }
  return failures;
}

std::string rules_text(mx::Dtype dtype, const Rules& rules) {
  if (dtype == mx::float32) {
    return fmt::format(
        "tokens identical on every prompt, mean KLD <= {:.0e}, up to where "
        "stock's router is tied to {:.0e} if that is where they part; bitwise "
        "repeats",
        rules.float32_kld,
        rules.router_tie);
  }
  return fmt::format(
      "errors to the float32 oracle <= {} x stock's, mean KLD <= {:.0e} or "
      "twice stock's own, no flip against the oracle above stock's own margin "
      "error, bitwise repeats",
      rules.oracle_ratio,
      rules.narrow_kld);
}

} // namespace zmlx::measure
