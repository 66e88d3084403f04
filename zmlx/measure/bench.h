// SPDX-License-Identifier: MIT
// Speed of a model in llama-bench's terms, on random tokens: no tokenizer.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "zmlx/base/json.h"
#include "zmlx/measure/llama_bench.h"
#include "zmlx/measure/machine.h"
#include "zmlx/measure/roofline.h"
#include "zmlx/measure/validate.h"
#include "zmlx/model/decode/program.h"
#include "zmlx/model/quantized_cache.h"

namespace zmlx::measure {

/// What is timed: every prompt length and every number of new tokens at every
/// depth; 0 skips. What a cache of some depth holds is made up: no step's time
/// depends on it.
struct BenchOptions {
  std::vector<int> n_prompt = {512}, n_gen = {128}, n_depth = {0};
  /// Sequences that get new tokens at once.
  std::vector<int> batches = {1};
  /// The cache of keys and values in fewer bits.
  KVQuantization kv = {};
  int repetitions = 5;
  /// Time the stages of decode_step too, in a run of their own for each test
  /// of new tokens.
  bool stages = false;
  /// How the read bandwidth is measured, before each round of a test of new
  /// tokens.
  RooflineOptions roofline;
  /// Called with the side and test that is run, and repetitions done.
  std::function<void(const std::string& what, int done, int total)> progress;
};

/// One side's runs of one test, in order.
struct BenchRow {
  BenchTest test;
  std::string side; // "patched", "stock" or "llama.cpp"
  std::string started; // UTC
  std::vector<double> nanoseconds; // one a repetition
  uint64_t peak_memory_bytes = 0; // 0: not known (llama.cpp)
  uint64_t cache_bytes = 0; // of keys and values that the last step read
  /// Of one more run, with the clock read after each stage; see BenchOptions.
  std::vector<decode::StageTime> stages = {};

  /// Tokens a second of all sequences, one a repetition.
  std::vector<double> tokens_per_second() const;
};

/// A bench of one model on this machine.
struct BenchResult {
  Machine machine;
  int threads = 1;
  std::string model; // the folder
  std::string llama_model; // the file that llama.cpp ran; "": none
  ModelInfo info;
  mx::Dtype dtype = mx::float32;
  PatchResult patched;
  /// In turn with the rounds of tests of new tokens; 0: there were none.
  ReadBandwidth read;
  std::vector<BenchRow> rows;

  /// The row of a side, or null.
  const BenchRow* find(const BenchTest& test, const std::string& side) const;
  /// Bytes of weights and caches that a row reads a second; 0 for prompts,
  /// which read each weight once for many tokens, and for batches whose stages
  /// were not timed.
  double bytes_per_second(const BenchRow& row) const;
};

/// The sides to be run, in this order of each repetition.
struct BenchSides {
  bool patched = true, stock = false;
  std::optional<LlamaBench> llama;
};

/// Runs every test: repetitions interleaved over the sides (A B, B A, ...).
/// The model must be stock and is stock afterwards. Throws
/// std::invalid_argument for wrong options, or lengths beyond the context.
BenchResult bench(
    Model& model,
    const BenchOptions& options,
    const BenchSides& which,
    const Sides& sides);

/// llama-bench's table, with GB/s and percent of the read bandwidth behind it.
std::string bench_markdown(const BenchResult& result);
/// For each row that has them, a table of its stages: microseconds a token,
/// bytes, and GB/s.
std::string bench_stages(const BenchResult& result);
/// llama-bench's array of rows, with our keys behind its own.
Json bench_json(const BenchResult& result);
/// The same without the samples, a header line first.
std::string bench_csv(const BenchResult& result);
/// For each test and side that has patched beside it: the ratio of tokens a
/// second of each repetition's pair, its median and range.
std::string bench_ratios(const BenchResult& result);

} // namespace zmlx::measure
