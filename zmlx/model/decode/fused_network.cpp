// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/fused_network.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/decode/cpu_step.h"
#include "zmlx/model/decode/cuda_step.h"
#include "zmlx/model/quantized_cache.h"

namespace zmlx::decode {
namespace {

/// Whether the sequences of a cache start at different rows.
bool has_starts(const Cache& cache) {
  return std::any_of(cache.begin(), cache.end(), [](const auto& layer) {
    const auto* kv = dynamic_cast<const KVCache*>(layer.get());
    return kv && !kv->starts.empty();
  });
}

void check_starts(const mx::array& tokens, const Cache& cache) {
  for (const auto& layer : cache) {
    const auto* kv = dynamic_cast<const KVCache*>(layer.get());
    const size_t batch = static_cast<size_t>(tokens.shape(0));
    if (!kv || kv->starts.empty()) {
      continue;
    }
    if (tokens.shape(1) != 1 || kv->starts.size() != batch) {
      invalid(
          "decode_step",
          "sequences that start at ",
          kv->starts.size(),
          " different rows must get one token each, got tokens of shape ",
          tokens.shape(),
          '.');
    }
    for (const int start : kv->starts) {
      if (start < 0 || start > kv->offset) {
        invalid(
            "decode_step",
            "a sequence must start in rows 0 to ",
            kv->offset,
            ", got ",
            start,
            '.');
      }
    }
  }
}

void check_step(const Cache& cache, int batch, int count, int max_positions) {
  for (const auto& layer : cache) {
    const auto* kv = dynamic_cast<const KVCache*>(layer.get());
    const auto* packed = dynamic_cast<const QuantizedKVCache*>(layer.get());
    const int offset = kv ? kv->offset : packed ? packed->offset : 0;
    if (max_positions > 0 && count > max_positions - offset) {
      invalid(
          "decode_step",
          "the context must be at most ",
          max_positions,
          " tokens, got ",
          offset + count,
          '.');
    }
    for (const auto& state : layer->state()) {
      if (state.shape(0) != batch) {
        invalid(
            "decode_step",
            "the batch must be the cache's, ",
            state.shape(0),
            ", got ",
            batch,
            '.');
      }
    }
  }
}

} // namespace

mx::array StepExecutor::draw(
    const mx::array&,
    Cache&,
    const SamplerOptions&,
    uint64_t,
    int) {
  throw std::logic_error("[decode_step] this executor draws no tokens.");
}

MadeExecutor make_executor(std::shared_ptr<const Program> program) {
  if (mx::default_device() == mx::Device(mx::Device::cpu)) {
    return {std::make_shared<CpuStep>(std::move(program)), ""};
  }
  auto reason = why_no_cuda_step(*program);
  if (!reason.empty()) {
    return {nullptr, std::move(reason)};
  }
  return {std::make_shared<CudaStep>(std::move(program)), ""};
}

std::future<void> prepare_executor(
    const Program& program,
    mx::Dtype cache_type) {
  return mx::default_device() == mx::Device(mx::Device::cpu)
      ? std::future<void>()
      : compile_cuda_step(program, cache_type);
}

FusedNetwork::FusedNetwork(
    std::unique_ptr<Network> stock,
    std::shared_ptr<StepExecutor> executor,
    int max_positions)
    : stock(std::move(stock)),
      executor(std::move(executor)),
      max_positions_(max_positions) {}

mx::array
FusedNetwork::forward(const mx::array& tokens, Cache& cache, bool last_only) {
  bool quantized = false, taken = true;
  for (const auto& layer : cache) {
    if (const auto* kv = dynamic_cast<const QuantizedKVCache*>(layer.get())) {
      quantized = true;
      taken = taken && executor->takes_packed(*kv);
    }
  }
  if (has_starts(cache)) {
    check_starts(tokens, cache);
    if (!executor->takes_starts() || quantized) {
      invalid("decode_step", "the sequences must start at the same row.");
    }
  }
  check_step(cache, tokens.shape(0), tokens.shape(1), max_positions_);
  if (tokens.shape(1) != 1 || cache.empty() || !taken) {
    executor->settle();
    return stock->forward(tokens, cache, last_only);
  }
  return executor->forward(tokens, cache);
}

FusedNetwork* FusedNetwork::that_draws(
    Network& network,
    const SamplerOptions& options,
    const Cache& cache) {
  auto* fused = dynamic_cast<FusedNetwork*>(&network);
  return fused && fused->most_drawn(options, cache) > 0 ? fused : nullptr;
}

void FusedNetwork::throw_that_gave_up(Network& network) {
  if (auto* fused = dynamic_cast<FusedNetwork*>(&network)) {
    fused->executor->settle();
  }
  throw BackendError("[decode_step] the device drew no token.");
}

mx::array FusedNetwork::draw(
    const mx::array& token,
    Cache& cache,
    const SamplerOptions& options,
    uint64_t first,
    int count) {
  check_step(cache, 1, count, max_positions_);
  return executor->draw(token, cache, options, first, count);
}

} // namespace zmlx::decode
