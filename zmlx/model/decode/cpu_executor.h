// SPDX-License-Identifier: MIT
// Runs a decode program on the CPU: one job of the thread team a token, with a
// barrier after each phase.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "zmlx/kernels/attention/cached_head.h"
#include "zmlx/model/decode/program.h"

namespace zmlx::decode {

/// One layer's cache as the executor updates it in place: (batch, kv_heads,
/// capacity, head_dim) each for attention, or (batch, taps - 1, dim) of inputs.
struct LayerState {
  cpu::CacheRows keys, values; // floats, or bytes
  int64_t capacity = 0;
  float* inputs = nullptr;
};

/// One token for each sequence of a batch, at the same row of the cache.
struct Step {
  int batch = 1;
  int position = 0;
  /// The row of the cache at which each sequence starts; empty: all at 0.
  std::vector<int> starts;
  const int32_t* tokens = nullptr; // (batch)
  std::vector<LayerState> layers;
  float* logits = nullptr; // (batch, vocab)

  int start_of(int64_t sequence) const {
    return starts.empty() ? 0 : starts[static_cast<size_t>(sequence)];
  }
};

/// Runs steps of one program; a second caller waits. The same bits for any
/// number of threads.
class CpuExecutor {
 public:
  /// Evaluates the arrays of the program.
  explicit CpuExecutor(std::shared_ptr<const Program> program);
  ~CpuExecutor();

  void run(const Step& step);

  const Program& program() const;

  /// How many of the steps found their first stages done: after a step of one
  /// sequence the threads go on with the likeliest token, while the caller
  /// makes its choice.
  int64_t steps_begun_ahead() const;

  /// Starts measuring stages, from zero.
  void start_timing();
  /// What was measured since, a row a kind of stage, and stops.
  std::vector<StageTime> stop_timing();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace zmlx::decode
