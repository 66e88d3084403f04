// SPDX-License-Identifier: MIT
// The capsule of a validation.
#include "zmlx/base/statistics.h"
#include "zmlx/measure/validate_report.h"
#include "zmlx/measure/verdict.h"

namespace zmlx::measure {
namespace {

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
  if (const auto& packed = result.packed_cache) {
    json["packed_cache"] = {
        {"mean_kld", packed->mean_kld()},
        {"kld_999", packed->kld_quantile(0.999)},
        {"max_kld", packed->max_kld()},
        {"same_top", packed->same_top()}};
  }
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
    if (const auto& tie = prompt.tie) {
      part["router_tie"] = {
          {"step", tie->step},
          {"gap", tie->gap},
          {"judged_steps", judged_steps(prompt)}};
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
  side.peak_mem_gb = static_cast<double>(speed.peak_memory_bytes) / 1e9;
  return side;
}

} // namespace

Capsule to_capsule(const ValidateResult& result, const std::string& command) {
  CapsuleModel model;
  const std::string name = result.name();
  const size_t slash = name.rfind('/');
  model.key = name.substr(slash == name.npos ? 0 : slash + 1);
  if (model.key == "meta") {
    model.key = "model_meta"; // that key is taken
  }
  model.model = slash == name.npos ? result.model : name;
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
