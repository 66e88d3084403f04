// SPDX-License-Identifier: MIT
#include "zmlx/measure/validate.h"

#include <algorithm>
#include <filesystem>

#include "zmlx/base/error.h"
#include "zmlx/base/hash.h"
#include "zmlx/base/json.h"
#include "zmlx/measure/prompts.h"
#include "zmlx/measure/proof.h"
#include "zmlx/measure/side_switch.h"
#include "zmlx/measure/timing.h"
#include "zmlx/measure/verdict.h"
#include "zmlx/model/checkpoint/checkpoint.h"
#include "zmlx/model/checkpoint/hub.h"

namespace zmlx::measure {
namespace {

// XXH3-128 of tokenizer.json as it stands: another vocabulary would give other
// tokens from the same weights.
std::string tokenizer_hash(const std::string& folder) {
  Hash hash;
  hash.add(read_file(folder + "/tokenizer.json"));
  return hash.hex();
}

void check(const ValidateOptions& options) {
  if (options.kv.bits != 0) {
    zmlx::check(options.kv);
  }
  if (options.max_tokens < 1) {
    invalid(
        "validate",
        "max_tokens must be at least 1, got ",
        options.max_tokens,
        '.');
  }
  if (options.runs < 1) {
    invalid("validate", "runs must be at least 1, got ", options.runs, '.');
  }
}

} // namespace

std::vector<std::string> pattern_names(const PatchResult& patched) {
  std::vector<std::string> names;
  for (const auto& [name, count] : patched.counts()) {
    names.push_back(name);
  }
  return names;
}

void PromptResult::match_tokens() {
  total = static_cast<int>(std::max(stock.size(), patched.size()));
  const auto shared =
      static_cast<std::ptrdiff_t>(std::min(stock.size(), patched.size()));
  for (std::ptrdiff_t i = 0; i < shared; ++i) {
    matched += stock[i] == patched[i];
  }
  if (matched != total) {
    const auto first =
        std::mismatch(stock.begin(), stock.begin() + shared, patched.begin());
    first_divergence = static_cast<int>(first.first - stock.begin());
    const auto& flips = closeness.flips;
    divergence_margin = flips.empty() ? 0 : flips.front().margin;
  }
}

std::string ValidateResult::name() const {
  const std::filesystem::path folder(model);
  for (const auto& part : folder) {
    if (auto id = hub_id(part.string()); !id.empty()) {
      return id;
    }
  }
  // "models/demo/" ends in an empty part.
  const auto part = folder.has_filename() ? folder.filename()
                                          : folder.parent_path().filename();
  return part.empty() ? model : part.string();
}

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
  result.model_hash = model.checkpoint ? model.checkpoint->hash() : "";
  result.tokenizer_hash = model.tokenizer ? tokenizer_hash(model.folder) : "";
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
