// SPDX-License-Identifier: MIT
#include "zmlx/measure/validate_report.h"

#include <algorithm>

#include <fmt/format.h>

#include "zmlx/base/statistics.h"
#include "zmlx/base/text.h"
#include "zmlx/measure/verdict.h"

namespace zmlx::measure {
namespace {

constexpr size_t kShownFlips = 8;

std::string banner(const std::string& label) {
  const std::string rule(60, '=');
  return fmt::format("{}\n  {}\n{}\n", rule, label, rule);
}

double gigabytes(uint64_t bytes) {
  return static_cast<double>(bytes) / 1e9;
}

std::string run_lines(const SideSpeed& speed) {
  std::string text;
  const size_t runs = speed.decode_tok_s.size();
  for (size_t i = 0; i < runs; ++i) {
    text += fmt::format(
        "  Run {}/{} ...  prompt={:.1f} tok/s  gen={:.1f} tok/s\n",
        i + 1,
        runs,
        speed.prefill_tok_s[i],
        speed.decode_tok_s[i]);
  }
  return text;
}

const char* yes_no(bool yes) {
  return yes ? "yes" : "NO";
}

std::string count_of(const Repetition& repetition) {
  return fmt::format(
      "{} ({}/{} steps)",
      yes_no(repetition.good()),
      repetition.equal_steps,
      repetition.steps);
}

std::string oracle_line(const ValidateResult& result) {
  if (!result.oracle) {
    return "stock is the oracle itself (float32 activations)";
  }
  return fmt::format(
      "RMS error stock {:.3g}, patched {:.3g}; KLD stock {:.3g}, patched "
      "{:.3g}; margin noise {:.3g}",
      result.oracle->stock_rms(),
      result.oracle->patched_rms(),
      result.oracle->stock_kld(),
      result.oracle->patched_kld(),
      result.oracle->margin_noise());
}

std::string ladder_lines(const ValidateResult& result) {
  const Closeness& sum = result.closeness;
  const auto identical = std::count_if(
      result.prompts.begin(),
      result.prompts.end(),
      [](const PromptResult& prompt) { return prompt.identical(); });
  std::string text = fmt::format(
      "  L0 bitwise logits   {}/{} steps\n"
      "  L1 greedy tokens    {}/{} prompts identical\n"
      "  L2 against stock    KLD mean {:.2e}, 99.9% {:.2e}, max {:.2e}; same "
      "top {:.3f}% +- {:.3f}%\n"
      "  L3 against float32  {}\n"
      "  Repeats bitwise     {}\n",
      sum.equal_steps,
      sum.steps,
      identical,
      result.prompts.size(),
      sum.mean_kld(),
      sum.kld_quantile(0.999),
      sum.max_kld(),
      100 * sum.same_top(),
      100 * sum.same_top_error(),
      oracle_line(result),
      count_of(result.repeat));
  if (const auto& packed = result.packed_cache) {
    text += fmt::format(
        "  Cache in fewer bits KLD to the whole one mean {:.2e}, 99.9% {:.2e}, "
        "max {:.2e}; same top {:.3f}%\n",
        packed->mean_kld(),
        packed->kld_quantile(0.999),
        packed->max_kld(),
        100 * packed->same_top());
  }
  if (result.one_thread) {
    text += fmt::format(
        "  1 thread as {:<7} {}\n",
        result.threads,
        count_of(*result.one_thread));
  }
  return text;
}

std::string divergence_lines(const ValidateResult& result) {
  std::string text;
  for (size_t i = 0; i < result.prompts.size(); ++i) {
    const PromptResult& prompt = result.prompts[i];
    if (!prompt.identical()) {
      text += fmt::format(
          "  First divergence of prompt {} at token {} (stock's margin "
          "{:.3g})\n",
          i + 1,
          prompt.first_divergence,
          prompt.divergence_margin);
    }
    if (const auto& tie = prompt.tie) {
      text += fmt::format(
          "  Prompt {} parts at token {}, where stock's routers are within "
          "{:.1e} of a tie: {}\n",
          i + 1,
          tie->step,
          tie->gap,
          judged_steps(prompt) < prompt.closeness.klds.size()
              ? "not judged from there on"
              : "no tie");
    }
  }
  const auto& flips = result.closeness.flips;
  for (size_t i = 0; i < std::min(flips.size(), kShownFlips); ++i) {
    const Flip& flip = flips[i];
    text += fmt::format(
        "  Flip: prompt {}, token {}: {} became {} (stock's margin {:.3g}{})\n",
        flip.prompt + 1,
        flip.step,
        flip.stock_token,
        flip.patched_token,
        flip.margin,
        flip.oracle_agrees() ? "; as the oracle" : "");
  }
  if (flips.size() > kShownFlips) {
    text += fmt::format(
        "  ... and {} flips more (all are in the capsule)\n",
        flips.size() - kShownFlips);
  }
  return text;
}

std::string row(const char* name, const SideSpeed& speed) {
  return fmt::format(
      "{:<10}{:>14.1f}{:>14.1f}{:>11.2f} GB\n",
      name,
      median(speed.prefill_tok_s),
      median(speed.decode_tok_s),
      gigabytes(speed.peak_memory_bytes));
}

std::string speed_table(const ValidateResult& result) {
  const SideSpeed& stock = result.stock_speed;
  const SideSpeed& patched = result.patched_speed;
  const double prefill =
      median(patched.prefill_tok_s) / median(stock.prefill_tok_s);
  const double decode =
      median(patched.decode_tok_s) / median(stock.decode_tok_s);
  std::string text = fmt::format(
      "{:<10}{:>14}{:>14}{:>14}\n",
      "Config",
      "Prompt tok/s",
      "Decode tok/s",
      "Peak Mem");
  text += row("Baseline", stock) + row("Patched", patched);
  text +=
      fmt::format("{:<10}{:>13.3f}x{:>13.3f}x\n", "Speedup", prefill, decode);
  text += fmt::format(
      "Medians of {} interleaved runs of {} prompt and {} new tokens; spread "
      "(worst to best) of decode: baseline {:.1f}%, patched {:.1f}%.\n",
      result.runs,
      result.timed_prompt_tokens,
      result.timed_tokens,
      100 * spread(stock.decode_tok_s),
      100 * spread(patched.decode_tok_s));
  if (!result.peak_is_of_side) {
    text +=
        "Peak memory is that of the whole process: it cannot be reset "
        "here.\n";
  }
  return text;
}

} // namespace

std::string to_text(const ValidateResult& result) {
  std::string text = banner("Baseline (stock MLX)");
  text += run_lines(result.stock_speed);
  text += banner("Patched");
  text += run_lines(result.patched_speed);
  text += banner("VALIDATION REPORT");
  const auto patterns = pattern_names(result.patched);
  text += fmt::format(
      "Model:     {} ({}, activations {})\nPatterns:  {} ({} modules)\n",
      result.name(),
      result.info.quantization,
      name_of(result.dtype),
      patterns.empty() ? "none" : join(patterns, ", "),
      result.patched.installed.size());
  text += fmt::format(
      "Tokens:    {} prompts, {} tokens (at most {} each)\n\n",
      result.prompts.size(),
      result.total(),
      result.max_tokens);
  text += fmt::format(
      "FIDELITY:  {}/{} tokens identical [{}]\n",
      result.matched(),
      result.total(),
      result.pass() ? "PASS" : "FAIL");
  text += ladder_lines(result) + divergence_lines(result);
  text += fmt::format("  Rule: {}\n", rules_text(result.dtype));
  if (result.pass() && result.matched() != result.total()) {
    text += result.oracle
        ? "  Tokens that differ lie within stock's own error at this type; "
          "patched is no further from float32 than stock.\n"
        : "  Tokens that differ follow a tie of stock's router, which rounding "
          "decides.\n";
  }
  for (const auto& failure : result.failures) {
    text += fmt::format("  FAIL {}\n", failure);
  }
  return text + '\n' + speed_table(result);
}

} // namespace zmlx::measure
