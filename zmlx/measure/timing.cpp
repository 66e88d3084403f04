// SPDX-License-Identifier: MIT
#include "zmlx/measure/timing.h"

#include <algorithm>

#include "zmlx/base/clock.h"
#include "zmlx/base/error.h"
#include "zmlx/measure/memory.h"
#include "zmlx/model/generate.h"

namespace zmlx::measure {
namespace {

constexpr double kLeastTokens = 8;

Piece run_to_end(
    Model& model,
    const std::vector<int>& prompt,
    int tokens,
    const KVQuantization& kv) {
  GenerateOptions options;
  options.kv = kv;
  options.max_tokens = tokens;
  options.stop_at_eos = false;
  Generation generation(model, prompt, std::move(options));
  Piece piece;
  while (generation.next(piece)) {
  }
  return piece;
}

// What the first run after a change of side pays alone: page faults, kernels
// compiled, buffers allocated.
void warm_up(
    Model& model,
    const std::vector<int>& prompt,
    const KVQuantization& kv) {
  const auto length =
      std::min<std::ptrdiff_t>(8, static_cast<std::ptrdiff_t>(prompt.size()));
  run_to_end(model, {prompt.begin(), prompt.begin() + length}, 2, kv);
}

int timed_tokens(const ValidateOptions& options, double rate) {
  const double affordable =
      std::max(kLeastTokens, rate * options.seconds_per_run);
  // Two at least: the first token's time is part of the prompt's.
  return std::max(
      2, static_cast<int>(std::min<double>(options.max_tokens, affordable)));
}

} // namespace

void time_sides(
    Model& model,
    const ValidateOptions& options,
    SideSwitch& side,
    double stock_tokens_per_second,
    ValidateResult& result) {
  const auto longest = std::max_element(
      result.prompts.begin(),
      result.prompts.end(),
      [](const PromptResult& a, const PromptResult& b) {
        return a.prompt.size() < b.prompt.size();
      });
  const std::vector<int>& prompt = longest->prompt;
  const int tokens = timed_tokens(options, stock_tokens_per_second);
  result.timed_prompt_tokens = static_cast<int>(prompt.size());
  interleave(2, options.runs, [&](int which, int round) {
    const bool patched = which == 1;
    if (options.progress) {
      options.progress(
          patched ? "Timing patched" : "Timing stock", round, options.runs);
    }
    if (side.to(patched) || round == 0) {
      warm_up(model, prompt, options.kv);
    }
    result.peak_is_of_side &= reset_peak_memory();
    const Piece last = run_to_end(model, prompt, tokens, options.kv);
    auto& speed = patched ? result.patched_speed : result.stock_speed;
    speed.prefill_tok_s.push_back(last.prompt_tokens / last.prompt_seconds);
    speed.decode_tok_s.push_back(
        (last.generated_tokens - 1) / last.generation_seconds);
    speed.peak_memory_bytes = std::max(speed.peak_memory_bytes, peak_memory());
    result.timed_tokens = last.generated_tokens;
  });
  side.to(false);
}

} // namespace zmlx::measure
