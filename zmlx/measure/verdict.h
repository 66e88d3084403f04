// SPDX-License-Identifier: MIT
// The rules by which validate() passes or fails.
#pragma once

#include <string>
#include <vector>

#include "zmlx/measure/validate.h"

namespace zmlx::measure {

/// The bounds of the rules. For every type: no NaN or +inf, and patched runs
/// repeat bit for bit, on one thread as on all.
struct Rules {
  /// float32: tokens identical on every prompt, and mean KLD (nats) at most
  double float32_kld = 1e-7;
  /// but a prompt is judged only up to where it parts, if stock's own routers
  /// are as near to a tie there: the rounding of a float32 sum of 10^4 terms,
  /// which decides to which experts the token goes. Half of all steps must be
  /// judged,
  double router_tie = 1e-5;
  /// bfloat16 and float16: mean KLD at most this, or twice stock's own mean
  /// KLD to the oracle where that is more (two runs that are each as far from
  /// the truth as stock is are up to that far apart),
  double narrow_kld = 5e-5;
  /// patched's RMS error to the oracle at most this times stock's, and its
  /// mean KLD to the oracle at most this times stock's plus two standard
  /// errors of the difference; and no flip away from the oracle's choice whose
  /// stock margin is above the largest error of stock's own margins.
  double oracle_ratio = 1.05;
};

/// The first step at which patched parts from stock, by its token or by more
/// than float32's bound of the mean KLD. -1: there is none, or the prompt has
/// the tokens and the mean KLD that float32 asks for.
int departure(const PromptResult& prompt, const Rules& rules = {});

/// The steps of a prompt that are judged at float32.
size_t judged_steps(const PromptResult& prompt, const Rules& rules = {});

/// One sentence for each rule that the result breaks.
std::vector<std::string> broken_rules(
    const ValidateResult& result,
    const Rules& rules = {});

/// The rules for a dtype in one line, for reports.
std::string rules_text(mx::Dtype dtype, const Rules& rules = {});

} // namespace zmlx::measure
