// SPDX-License-Identifier: MIT
// A network whose steps of one token run as a decode program.
#pragma once

#include <future>
#include <memory>
#include <string>

#include "zmlx/model/decode/program.h"
#include "zmlx/model/model.h"
#include "zmlx/model/quantized_cache.h"
#include "zmlx/model/sampler.h"

namespace zmlx::decode {

/// Runs steps of one token a sequence, logits (batch, 1, vocab) float32, and
/// advances the same caches as the network that the program was made of.
class StepExecutor {
 public:
  virtual ~StepExecutor() = default;
  virtual mx::array forward(const mx::array& tokens, Cache& cache) = 0;
  /// Whether steps take a cache in fewer bits.
  virtual bool takes_packed(const QuantizedKVCache&) const {
    return false;
  }
  /// Whether sequences may start at different rows, KVCache::starts.
  virtual bool takes_starts() const {
    return false;
  }
  /// How many tokens draw() takes at once; 0 where it is not to be called.
  virtual int most_drawn(const SamplerOptions&, const Cache&) const {
    return 0;
  }
  /// Runs `token` (1,) int32 and draws the token after it, and so on until
  /// `count` of them are drawn (count,) int32: draws `first` and on of a
  /// Sampler; -1 where the device gave up, which settle() then throws. The
  /// caches are advanced by count.
  virtual mx::array draw(
      const mx::array& token,
      Cache& cache,
      const SamplerOptions& options,
      uint64_t first,
      int count);
  /// Ends steps under way, before others use their caches.
  virtual void settle() {}
  /// An array that is there once the last step has written its caches; none
  /// where MLX itself sees what a step writes.
  virtual std::optional<mx::array> last_written() const {
    return std::nullopt;
  }

  /// Measures the stages of the steps that follow, from zero.
  virtual void start_timing() {}
  /// What was measured, a row a kind of stage, and stops; empty where stages
  /// cannot be told apart.
  virtual std::vector<StageTime> stop_timing() {
    return {};
  }
};

/// The executor of the default device, or why it has none.
struct MadeExecutor {
  std::shared_ptr<StepExecutor> executor;
  std::string reason;
};

MadeExecutor make_executor(std::shared_ptr<const Program> program);

/// Starts in the background what make_executor() of the program and first steps
/// with caches of this type would wait for, if anything.
std::future<void> prepare_executor(
    const Program& program,
    mx::Dtype cache_type);

/// Stands for `stock`: one token a sequence with a cache goes through the
/// executor, everything else through stock.
class FusedNetwork : public Network {
 public:
  /// max_positions: the longest context, 0 for any.
  FusedNetwork(
      std::unique_ptr<Network> stock,
      std::shared_ptr<StepExecutor> executor,
      int max_positions);

  std::string_view kind() const override {
    return "FusedDecodeStep";
  }
  const Module& stock_module() const override {
    return *stock;
  }
  std::vector<Child> children() override {
    return stock->children();
  }
  /// Throws std::invalid_argument when tokens would go past max_positions or
  /// have another batch than the cache; the cache is then as it was.
  mx::array forward(const mx::array& tokens, Cache& cache, bool last_only)
      override;
  /// The network if it is fused and its executor draws tokens with these
  /// options, else null.
  static FusedNetwork* that_draws(
      Network& network,
      const SamplerOptions& options,
      const Cache& cache);
  /// Throws BackendError, once a launch has drawn tokens of -1.
  [[noreturn]] static void throw_that_gave_up(Network& network);
  /// As the executor's.
  int most_drawn(const SamplerOptions& options, const Cache& cache) const {
    return executor->most_drawn(options, cache);
  }
  mx::array draw(
      const mx::array& token,
      Cache& cache,
      const SamplerOptions& options,
      uint64_t first,
      int count);
  Cache make_cache() const override {
    return stock->make_cache();
  }
  std::optional<Backbone> backbone() const override {
    return stock->backbone();
  }

  std::unique_ptr<Network> stock;
  const std::shared_ptr<StepExecutor> executor;

 private:
  int max_positions_;
};

} // namespace zmlx::decode
