// SPDX-License-Identifier: MIT
#include "zmlx/measure/validate_report.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "zmlx/base/text.h"
#include "zmlx/measure/statistics.h"
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

std::string model_name(const ValidateResult& result) {
  const auto name = std::filesystem::path(result.model).filename().string();
  return name.empty() ? result.model : name;
}

std::vector<std::string> pattern_names(const PatchResult& patched) {
  std::vector<std::string> names;
  for (const auto& [name, count] : patched.counts()) {
    names.push_back(name);
  }
  return names;
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

Json flips_json(const std::vector<Flip>& flips) {
  Json json = Json::array();
  for (const auto& flip : flips) {
    Json part{
        {"prompt", flip.prompt},
        {"step", flip.step},
        {"stock_token", flip.stock_token},
        {"patched_token", flip.patched_token},
        {"stock_margin", flip.margin}};
    if (flip.oracle_token >= 0) {
      part["oracle_token"] = flip.oracle_token;
    }
    json.push_back(std::move(part));
  }
  return json;
}

Json repetition_json(const Repetition& repetition) {
  return {{"steps", repetition.steps}, {"equal_steps", repetition.equal_steps}};
}

Json oracle_json(const OracleErrors& oracle) {
  return {
      {"oracle", "stock at float32"},
      {"stock_rms_error", oracle.stock_rms()},
      {"patched_rms_error", oracle.patched_rms()},
      {"stock_mean_kld", oracle.stock_kld()},
      {"patched_mean_kld", oracle.patched_kld()},
      {"stock_margin_noise", oracle.margin_noise()}};
}

Json ladder_json(const ValidateResult& result) {
  const Closeness& sum = result.closeness;
  Json json;
  json["rules"] = rules_text(result.dtype);
  json["failures"] = result.failures;
  json["L0"] = {{"steps", sum.steps}, {"equal_steps", sum.equal_steps}};
  json["L1"] = {{"matched", result.matched()}, {"total", result.total()}};
  json["L2"] = {
      {"mean_kld", sum.mean_kld()},
      {"kld_999", sum.kld_quantile(0.999)},
      {"max_kld", sum.max_kld()},
      {"same_top", sum.same_top()},
      {"same_top_standard_error", sum.same_top_error()},
      {"flips", flips_json(sum.flips)}};
  json["L3"] = result.oracle ? oracle_json(*result.oracle)
                             : Json{{"oracle", "stock itself"}};
  json["repeat"] = repetition_json(result.repeat);
  if (result.one_thread) {
    json["one_thread"] = repetition_json(*result.one_thread);
  }
  return json;
}

Json prompts_json(const ValidateResult& result) {
  Json json = Json::array();
  for (const auto& prompt : result.prompts) {
    Json part{{"prompt_tokens", prompt.prompt.size()}};
    if (!prompt.text.empty()) {
      part["text"] = prompt.text;
    } else {
      part["tokens"] = prompt.prompt;
    }
    part["gen_tokens"] = prompt.stock.size();
    part["matched"] = prompt.matched;
    part["total"] = prompt.total;
    if (!prompt.identical()) {
      part["first_divergence"] = prompt.first_divergence;
      part["stock_margin"] = prompt.divergence_margin;
    }
    part["mean_kld"] = prompt.closeness.mean_kld();
    part["max_kld"] = prompt.closeness.max_kld();
    json.push_back(std::move(part));
  }
  return json;
}

CapsuleSide side_of(const SideSpeed& speed) {
  CapsuleSide side;
  side.prefill_tok_s = speed.prefill_tok_s;
  side.decode_tok_s = speed.decode_tok_s;
  side.median_prefill = median(speed.prefill_tok_s);
  side.median_decode = median(speed.decode_tok_s);
  side.peak_mem_gb = gigabytes(speed.peak_memory_bytes);
  return side;
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
      model_name(result),
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
    text +=
        "  Tokens that differ lie within stock's own error at this type; "
        "patched is no further from float32 than stock.\n";
  }
  for (const auto& failure : result.failures) {
    text += fmt::format("  FAIL {}\n", failure);
  }
  return text + '\n' + speed_table(result);
}

Capsule to_capsule(const ValidateResult& result, const std::string& command) {
  CapsuleModel model;
  model.key = model_name(result);
  model.model = result.model;
  model.model_hash = result.model_hash;
  model.tokenizer_hash = result.tokenizer_hash;
  model.dtype = name_of(result.dtype);
  model.quantization = result.info.quantization;
  model.max_tokens = result.max_tokens;
  model.gen_tokens = result.timed_tokens;
  model.runs = result.runs;
  model.matched = result.matched();
  model.total = result.total();
  model.verdict = result.pass() ? "PASS" : "FAIL";
  model.baseline = side_of(result.stock_speed);
  model.patched = side_of(result.patched_speed);
  model.patched.patterns = pattern_names(result.patched);
  model.patched.modules_patched =
      static_cast<int>(result.patched.installed.size());
  model.decode_speedup =
      model.patched.median_decode / model.baseline.median_decode;
  model.prefill_change =
      model.patched.median_prefill / model.baseline.median_prefill - 1;
  model.ladder = ladder_json(result);
  model.prompts = prompts_json(result);
  return {meta_of_this_machine(command, result.threads), {std::move(model)}};
}

} // namespace zmlx::measure
