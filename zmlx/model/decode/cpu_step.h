// SPDX-License-Identifier: MIT
// A step of the decode program on the CPU as one MLX primitive.
#pragma once

#include <memory>

#include "zmlx/model/decode/cpu_executor.h"
#include "zmlx/model/decode/fused_network.h"

namespace zmlx::decode {

/// Caches must be float32 or packed in 8 or 4 bits; they are updated in place
/// when nobody else holds their arrays.
class CpuStep : public StepExecutor {
 public:
  explicit CpuStep(std::shared_ptr<const Program> program);
  mx::array forward(const mx::array& tokens, Cache& cache) override;
  /// Of 8 or 4 bits, with float32 scales.
  bool takes_packed(const QuantizedKVCache& cache) const override;
  bool takes_starts() const override {
    return true;
  }

  void start_timing() override {
    executor_->start_timing();
  }
  std::vector<StageTime> stop_timing() override {
    return executor_->stop_timing();
  }

 private:
  struct Layer {
    size_t index; // of the cache
    mx::Shape state; // without the batch: of the inputs, or of the keys
    bool attends;
  };
  std::vector<Layer> layers_;
  std::shared_ptr<CpuExecutor> executor_;
};

} // namespace zmlx::decode
