// SPDX-License-Identifier: MIT
#include "zmlx/measure/validate.h"

#include "zmlx/base/error.h"
#include "zmlx/measure/prompts.h"
#include "zmlx/measure/proof.h"
#include "zmlx/measure/side_switch.h"
#include "zmlx/measure/timing.h"
#include "zmlx/measure/verdict.h"

namespace zmlx::measure {
namespace {

void check(const ValidateOptions& options) {
  if (options.max_tokens < 1) {
    invalid(
        "validate", "max_tokens must be at least 1, got ", options.max_tokens,
        '.');
  }
  if (options.runs < 1) {
    invalid("validate", "runs must be at least 1, got ", options.runs, '.');
  }
}

} // namespace

int ValidateResult::matched() const {
  int sum = 0;
  for (const auto& prompt : prompts) {
    sum += prompt.matched;
  }
  return sum;
}

int ValidateResult::total() const {
  int sum = 0;
  for (const auto& prompt : prompts) {
    sum += prompt.total;
  }
  return sum;
}

ValidateResult validate(Model& model, const ValidateOptions& options) {
  return validate(model, options, sides_of(model, options.patch));
}

ValidateResult
validate(Model& model, const ValidateOptions& options, const Sides& sides) {
  check(options);
  ValidateResult result;
  result.model = model.folder;
  result.info = model.info;
  result.dtype = model.dtype;
  result.max_tokens = options.max_tokens;
  result.runs = options.runs;
  result.threads = sides.threads;
  for (auto& prompt : choose_prompts(
           model, options.prompts, options.token_prompts, options.raw)) {
    PromptResult part;
    part.text = std::move(prompt.text);
    part.prompt = std::move(prompt.tokens);
    result.prompts.push_back(std::move(part));
  }
  SideSwitch side(model, sides);
  const double stock_rate = prove(model, options, sides, side, result);
  time_sides(model, options, side, stock_rate, result);
  result.patched = side.patch_result();
  result.failures = broken_rules(result);
  return result;
}

} // namespace zmlx::measure
