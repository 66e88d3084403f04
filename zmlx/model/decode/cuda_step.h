// SPDX-License-Identifier: MIT
// A step of the decode program on a CUDA device as one persistent kernel.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <vector>

#include "zmlx/model/decode/cuda_table.h"
#include "zmlx/model/decode/fused_network.h"

namespace zmlx::decode {

/// Why the default device has no executor for the program, or "".
std::string why_no_cuda_step(const Program& program);

/// Compiles what a CudaStep of the program will call, with caches of this type,
/// in the background (compile_ahead); nothing where there is none for it.
std::future<void> compile_cuda_step(
    const Program& program,
    mx::Dtype cache_type);

/// Caches may be of any floating-point type, all of one; they are updated in
/// place, after being copied if somebody else holds their arrays. A step whose
/// kernel stopped waiting makes one of the next 16 throw BackendError. Not safe
/// for use from two threads at once.
class CudaStep : public StepExecutor {
 public:
  /// The program must be one that why_no_cuda_step() has nothing against.
  explicit CudaStep(std::shared_ptr<const Program> program);
  mx::array forward(const mx::array& tokens, Cache& cache) override;
  int most_drawn(const SamplerOptions& options, const Cache& cache)
      const override;
  mx::array draw(
      const mx::array& token,
      Cache& cache,
      const SamplerOptions& options,
      uint64_t first,
      int count) override;
  void settle() override;
  std::optional<mx::array> last_written() const override {
    return last_failed_;
  }

 private:
  /// A layer's entry in the cache.
  struct Layer {
    size_t index;
    mx::Shape state; // without the batch: of the inputs, or of the keys
    bool attends;
  };
  /// How tokens are chosen, on the device.
  struct Draw {
    std::array<uint32_t, 4> words;
    mx::array array;
  };
  /// Of `count` tokens from a position on.
  struct Launch {
    int sequence, position, first, count;
  };
  int take_caches(Cache& cache, int batch, int count);
  void advance(Cache& cache, int count) const;
  const mx::array& draw_of(const SamplerOptions& options, int count);
  mx::array new_workspace() const;
  mx::array start_at(int position, int drawn) const;
  /// Logits (vocab) of the last token, and `draw.count` tokens.
  std::pair<mx::array, mx::array>
  run(const mx::array& token, const Launch& launch, const mx::array& draw);
  void check_finished();

  std::shared_ptr<const Program> program_;
  std::vector<Layer> layers_;
  CudaTable table_;
  int blocks_;
  mx::array words_, workspace_;
  std::optional<mx::Dtype> cache_type_;
  mx::fast::CustomKernelFunction kernel_;
  /// Where an array's values are, without keeping them there.
  struct Place {
    std::weak_ptr<mx::array::Data> data;
    int64_t offset;
  };
  // The caches that addresses_ was made of; a row a sequence.
  std::vector<Place> held_;
  std::vector<mx::array> addresses_;
  int capacity_ = 0;
  /// What a sequence's last step left for the one that follows.
  struct Next {
    std::optional<mx::array> step;
    int position = 0, capacity = 0, drawn = 0;
  };
  std::vector<Next> next_;
  std::vector<Draw> draws_; // the newest few
  int steps_ = 0;
  std::deque<mx::array> unchecked_; // results of some steps, oldest first
  std::optional<mx::array> last_failed_; // of the newest step
};

} // namespace zmlx::decode
