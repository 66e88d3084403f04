// SPDX-License-Identifier: MIT
// Proves on one loaded model that patching left its answers as they were, and
// times both sides.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "zmlx/measure/ladder.h"
#include "zmlx/model/patch/patch.h"
#include "zmlx/model/quantized_cache.h"

namespace zmlx::measure {

struct ValidateOptions {
  /// Text prompts; when both lists are empty, five built-in ones, or random
  /// token ids where the model has no tokenizer.
  std::vector<std::string> prompts;
  std::vector<std::vector<int>> token_prompts;
  /// Use no chat template, even if the model has one.
  bool raw = false;
  /// Greedy tokens a prompt; fewer where stock meets an end token.
  int max_tokens = 200;
  /// Timed runs a side.
  int runs = 3;
  /// A timed run decodes no more tokens than stock does in so many seconds
  /// (but at least 8); both sides decode the same number.
  double seconds_per_run = 20;
  PatchOptions patch;
  /// The cache of both sides in fewer bits.
  KVQuantization kv = {};
  /// Called with what is being done, and how much of it.
  std::function<void(const std::string& phase, long done, long total)> progress;
};

/// How validate() reaches the sides of its comparison.
struct Sides {
  std::function<PatchResult(Model&)> patch;
  std::function<void(Model&)> unpatch;
  /// The stock model with float32 activations; asked for only when the model's
  /// own are narrower.
  std::function<std::unique_ptr<Model>()> load_oracle;
  /// Sets the threads of CPU kernels; null where they have none.
  std::function<void(int)> set_threads;
  int threads = 1; // in use now
};

/// patch(), unpatch(), load() of the model's folder, and the thread team.
Sides sides_of(const Model& model, const PatchOptions& options);

/// How near stock's routers were to a tie where patched parted from stock.
struct RouterTie {
  int step = 0; // the first that parted
  double gap = 0; // router_gap(): a part of a router's largest logit
};

/// One prompt's part in the proof.
struct PromptResult {
  std::string text; // "" for token prompts
  std::vector<int> prompt; // ids
  std::vector<int> stock, patched; // greedy tokens
  /// Level L1: positions with the same token, of max(both lengths).
  int matched = 0, total = 0;
  /// The first position that differs, and stock's margin there; -1: none.
  int first_divergence = -1;
  double divergence_margin = 0;
  Closeness closeness; // this prompt's part of L0 and L2
  /// At float32, where this prompt alone would fail; none without routers.
  std::optional<RouterTie> tie = std::nullopt;

  bool identical() const {
    return first_divergence < 0;
  }
  /// Level L1 from `stock`, `patched` and the flips.
  void match_tokens();
};

/// Patched runs that must give the same bits as the first patched run.
struct Repetition {
  size_t steps = 0, equal_steps = 0;
  bool good() const {
    return steps == equal_steps;
  }
};

/// One side's timed runs, in order.
struct SideSpeed {
  std::vector<double> prefill_tok_s, decode_tok_s;
  uint64_t peak_memory_bytes = 0; // the most of its runs
};

/// What validate() found.
struct ValidateResult {
  std::string model; // the folder
  std::string model_hash, tokenizer_hash; // "" where there is none
  ModelInfo info;
  mx::Dtype dtype = mx::float32;
  int max_tokens = 0, runs = 0;
  PatchResult patched;
  std::vector<PromptResult> prompts;
  Closeness closeness; // all prompts: L0 and L2
  /// Patched with options.kv against patched with the whole cache, along
  /// stock's tokens; none: the cache is whole.
  std::optional<Closeness> packed_cache;
  std::optional<OracleErrors> oracle; // L3; none: stock is the oracle itself
  Repetition repeat;
  std::optional<Repetition> one_thread; // none: one thread is all there is
  int threads = 1;

  SideSpeed stock_speed, patched_speed;
  int timed_prompt_tokens = 0, timed_tokens = 0;
  /// The peak was reset before each timed run, so it is the side's own.
  bool peak_is_of_side = true;

  /// One sentence for each rule that was broken; none: the proof holds.
  std::vector<std::string> failures;

  bool pass() const {
    return failures.empty();
  }
  /// The Hugging Face id of a folder in the hub's cache, else its last part.
  std::string name() const;
  int matched() const;
  int total() const;
};

/// The patterns that put a module in place, sorted.
std::vector<std::string> pattern_names(const PatchResult& patched);

/// Runs the fidelity ladder, then the timed runs; the model must be stock and
/// is stock afterwards. Weights are loaded once: sides are changed by patching.
/// Throws std::invalid_argument on wrong options or prompts.
ValidateResult validate(Model& model, const ValidateOptions& options = {});

/// The same with other sides.
ValidateResult
validate(Model& model, const ValidateOptions& options, const Sides& sides);

} // namespace zmlx::measure
