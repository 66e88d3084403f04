// SPDX-License-Identifier: MIT
#include "zmlx/measure/bench.h"

#include <algorithm>
#include <optional>

#include "zmlx/base/clock.h"
#include "zmlx/base/error.h"
#include "zmlx/measure/memory.h"
#include "zmlx/measure/prompts.h"
#include "zmlx/measure/side_switch.h"
#include "zmlx/model/decode/fused_network.h"
#include "zmlx/model/generate.h"

namespace zmlx::measure {
namespace {

constexpr int kWarmUpTokens = 32, kPrefillStep = 512;

std::vector<BenchTest> tests_of(const BenchOptions& options) {
  std::vector<BenchTest> tests;
  for (int depth : options.n_depth) {
    for (int prompt : options.n_prompt) {
      if (prompt > 0) {
        tests.push_back({prompt, 0, depth, 1});
      }
    }
    for (int gen : options.n_gen) {
      for (int batch : options.batches) {
        if (gen > 0) {
          tests.push_back({0, gen, depth, batch});
        }
      }
    }
  }
  return tests;
}

void check(const Model& model, const BenchOptions& options) {
  for (const auto* counts :
       {&options.n_prompt, &options.n_gen, &options.n_depth}) {
    for (int count : *counts) {
      if (count < 0) {
        invalid("bench", "token counts must be at least 0, got ", count, '.');
      }
    }
  }
  for (int batch : options.batches) {
    if (batch < 1 || batch > 1024) {
      invalid("bench", "a batch must be 1 to 1024 sequences, got ", batch, '.');
    }
  }
  if (options.kv.bits != 0) {
    zmlx::check(options.kv);
  }
  if (options.repetitions < 1) {
    invalid(
        "bench",
        "repetitions must be at least 1, got ",
        options.repetitions,
        '.');
  }
  const auto tests = tests_of(options);
  if (tests.empty()) {
    invalid("bench", "at least one of -p and -n must be above 0.");
  }
  const int longest = model.info.max_positions;
  for (const auto& test : tests) {
    if (longest > 0 && test.tokens() > longest - test.n_depth) {
      invalid(
          "bench",
          test.name(),
          " must fit the context of ",
          longest,
          " tokens.");
    }
  }
}

mx::array random_batch(const Model& model, int batch, uint64_t seed) {
  const auto row = random_tokens(batch, model.info.vocab_size, seed);
  return mx::array(row.begin(), {batch, 1}, mx::int32);
}

// A cache as if `depth` tokens had gone through: one does, and tells the
// shapes of the keys and values that are made up for the others.
void fill(Model& model, Cache& cache, const BenchTest& test, uint64_t seed) {
  // Here and not by the first step that is timed.
  mx::eval(model.network->forward(
      random_batch(model, test.batch, seed), cache, true));
  for (auto& layer : cache) {
    auto* kv = dynamic_cast<KVCache*>(layer.get());
    if (kv && kv->keys && test.n_depth > 1) {
      mx::Shape shape = kv->keys->shape();
      shape[2] = test.n_depth - 1;
      const auto rows = mx::random::normal(shape, kv->keys->dtype());
      kv->update_and_fetch(rows, rows);
      eval(cache);
    }
  }
  mx::clear_cache();
}

// Bytes of keys and values that a step reads now.
uint64_t bytes_read(const Cache& cache) {
  uint64_t sum = 0;
  const auto add = [&](const auto* kv) {
    if (kv && kv->offset > 0) {
      const auto arrays = kv->state();
      sum += kv->nbytes() / static_cast<uint64_t>(arrays[0].shape(2)) *
          static_cast<uint64_t>(kv->offset);
    }
  };
  for (const auto& layer : cache) {
    add(dynamic_cast<const KVCache*>(layer.get()));
    add(dynamic_cast<const QuantizedKVCache*>(layer.get()));
  }
  return sum;
}

struct Run {
  double seconds;
  uint64_t cache_bytes; // read by the last step
};

// Lets the device draw the tokens, as generate() does where it can: at a
// temperature of one, so that they go their own way.
void draw_tokens(
    decode::FusedNetwork& network,
    Cache& cache,
    const BenchTest& test,
    const std::vector<int>& tokens,
    const SamplerOptions& options) {
  const int most = network.most_drawn(options, cache);
  mx::array token(tokens.data(), {1}, mx::int32);
  std::optional<mx::array> running;
  for (int done = 0; done < test.n_gen;) {
    const int count = std::min(most, test.n_gen - done);
    auto drawn =
        network.draw(token, cache, options, static_cast<uint64_t>(done), count);
    mx::async_eval(drawn);
    if (running) {
      running->wait();
    }
    token = mx::slice(drawn, {count - 1}, {count});
    running = std::move(drawn);
    done += count;
  }
  mx::eval(*running);
}

// The cache is filled before the clock starts.
Run run_once(
    Model& model,
    const BenchTest& test,
    const KVQuantization& kv,
    uint64_t seed) {
  const int vocab = model.info.vocab_size;
  Cache cache = model.network->make_cache();
  expect(cache, test.n_depth + test.tokens());
  if (test.n_depth > 0) {
    fill(model, cache, test, seed);
    quantize(cache, kv);
    eval(cache);
  }
  const auto tokens = random_tokens(test.tokens(), vocab, seed);
  SamplerOptions sampler;
  sampler.temperature = 1;
  sampler.seed = seed;
  auto* drawing = test.batch == 1 && test.n_gen > 0
      ? decode::FusedNetwork::that_draws(*model.network, sampler, cache)
      : nullptr;
  const Stopwatch watch;
  if (test.n_prompt > 0) {
    prefill(model, cache, tokens, kPrefillStep, {}, kv);
  } else if (drawing) {
    draw_tokens(*drawing, cache, test, tokens, sampler);
    eval(cache);
  } else {
    // A step is built while the one before runs, as generate() does.
    std::optional<mx::array> running;
    for (int token : tokens) {
      // Sequences go their own ways from the first token on.
      const auto input =
          random_batch(model, test.batch, static_cast<uint64_t>(token) + 1);
      mx::array logits = model.network->forward(input, cache, true);
      quantize(cache, kv);
      mx::async_eval(logits);
      if (running) {
        running->wait();
      }
      running = std::move(logits);
    }
    mx::eval(*running);
    eval(cache);
  }
  return {watch.seconds(), bytes_read(cache)};
}

void warm_up(Model& model, const BenchTest& test, const KVQuantization& kv) {
  BenchTest shorter;
  shorter.n_prompt = std::min(test.n_prompt, kWarmUpTokens);
  shorter.n_gen = std::min(test.n_gen, 2);
  run_once(model, shorter, kv, 0);
}

// Each weight is read once a token, but once for all tokens of a prompt: no
// share of the memory's speed is told for those.
bool reads_memory(const BenchTest& test) {
  return test.n_gen > 0;
}

int rounds_read(const BenchOptions& options) {
  const auto tests = tests_of(options);
  return options.repetitions *
      static_cast<int>(std::ranges::count_if(tests, reads_memory));
}

class Runner {
 public:
  Runner(
      Model& model,
      const BenchOptions& options,
      const BenchSides& which,
      const Sides& sides)
      : model_(model),
        options_(options),
        which_(which),
        side_(model, sides),
        reads_(options.roofline, rounds_read(options)) {
    for (const auto& [name, wanted] :
         {std::pair{"patched", which.patched},
          std::pair{"stock", which.stock},
          std::pair{"llama.cpp", which.llama.has_value()}}) {
      if (wanted) {
        names_.emplace_back(name);
      }
    }
  }

  void run(const BenchTest& test, std::vector<BenchRow>& rows) {
    std::vector<BenchRow> sides(names_.size());
    for (size_t i = 0; i < sides.size(); ++i) {
      sides[i].test = test;
      sides[i].side = names_[i];
      sides[i].started = utc_now();
    }
    int round_to_read = 0;
    interleave(
        static_cast<int>(sides.size()),
        options_.repetitions,
        [&](int which, int round) {
          BenchRow& row = sides[static_cast<size_t>(which)];
          if (reads_memory(test) && round == round_to_read) {
            ++round_to_read;
            read_memory();
          }
          if (options_.progress) {
            options_.progress(
                concat(test.name(), ' ', row.side),
                round,
                options_.repetitions);
          }
          if (row.side == "llama.cpp") {
            row.nanoseconds.push_back(which_.llama->run(test));
          } else {
            run_here(row, round);
          }
        });
    if (options_.stages && which_.patched && test.n_gen > 0) {
      time_stages(sides.front());
    }
    rows.insert(rows.end(), sides.begin(), sides.end());
  }

  const PatchResult& patch_result() const {
    return side_.patch_result();
  }
  ReadBandwidth read() const {
    return reads_.best();
  }

 private:
  // In each round: on a shared machine the wall itself moves.
  void read_memory() {
    if (options_.progress) {
      options_.progress("reading memory", 0, 1);
    }
    reads_.add();
  }

  void run_here(BenchRow& row, int round) {
    if (side_.to(row.side == "patched") || round == 0) {
      warm_up(model_, row.test, options_.kv);
    }
    reset_peak_memory();
    const auto seed = static_cast<uint64_t>(round) + 1;
    const auto run = run_once(model_, row.test, options_.kv, seed);
    row.nanoseconds.push_back(run.seconds * 1e9);
    row.cache_bytes = run.cache_bytes;
    // What is held to be read is no memory of the model's.
    const uint64_t peak = peak_memory(), held = reads_.held_bytes();
    row.peak_memory_bytes =
        std::max(row.peak_memory_bytes, peak > held ? peak - held : 0);
  }

  // The patched side is the first.
  void time_stages(BenchRow& row) {
    if (side_.to(true)) {
      warm_up(model_, row.test, options_.kv);
    }
    auto* fused = dynamic_cast<decode::FusedNetwork*>(model_.network.get());
    if (!fused) {
      return;
    }
    fused->executor->start_timing();
    run_once(model_, row.test, options_.kv, 1);
    row.stages = fused->executor->stop_timing();
  }

  Model& model_;
  const BenchOptions& options_;
  const BenchSides& which_;
  SideSwitch side_;
  std::vector<std::string> names_;
  ReadPasses reads_;
};

} // namespace

std::vector<double> BenchRow::tokens_per_second() const {
  std::vector<double> rates;
  for (double each : nanoseconds) {
    rates.push_back(test.tokens() * test.batch / (each * 1e-9));
  }
  return rates;
}

const BenchRow* BenchResult::find(
    const BenchTest& test,
    const std::string& side) const {
  for (const auto& row : rows) {
    if (row.test == test && row.side == side) {
      return &row;
    }
  }
  return nullptr;
}

BenchResult bench(
    Model& model,
    const BenchOptions& options,
    const BenchSides& which,
    const Sides& sides) {
  check(model, options);
  BenchResult result;
  result.machine = this_machine();
  result.threads = sides.threads;
  result.model = model.folder;
  result.llama_model = which.llama ? which.llama->gguf : "";
  result.info = model.info;
  result.dtype = model.dtype;
  if (which.llama && options.batches != std::vector<int>{1}) {
    invalid("bench", "llama-bench has no batches: -b must be 1.");
  }
  Runner runner(model, options, which, sides);
  for (const auto& test : tests_of(options)) {
    runner.run(test, result.rows);
  }
  result.read = runner.read();
  result.patched = runner.patch_result();
  return result;
}

} // namespace zmlx::measure
