// SPDX-License-Identifier: MIT
// A small made-up model for tests: logits are a hash of the tokens so far, and
// its patched side can be given faults.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "zmlx/measure/validate.h"
#include "zmlx/model/layers/moe.h"

namespace zmlx::measure::testing {

inline constexpr int kVocab = 40;

/// A fault: changes logits (kVocab,), given how many tokens came before.
using Fault = std::function<void(std::vector<float>&, int position)>;

class FakeCache : public LayerCache {
 public:
  std::vector<mx::array> state() const override {
    return {};
  }
  uint64_t hash = 1;
  int position = 0;
};

inline uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// A router's projection: logits given how many tokens came before.
class FakeGate : public Layer {
 public:
  using Logits = std::function<std::vector<float>(int position)>;
  explicit FakeGate(Logits logits) : logits(std::move(logits)) {}
  std::string_view kind() const override {
    return "FakeGate";
  }
  mx::array forward(const mx::array& x) const override {
    const auto row = logits(static_cast<int>(mx::array(x).item<float>()));
    return mx::array(row.begin(), {1, static_cast<int>(row.size())});
  }

  Logits logits;
};

class FakeNetwork : public Network {
 public:
  std::string_view kind() const override {
    return "FakeNetwork";
  }
  std::vector<Child> children() override {
    return block ? std::vector<Child>{{"feed_forward", block.get(), {}}}
                 : std::vector<Child>{};
  }

  /// Gives the network a router that asks the gate at every token and uses
  /// nothing of it.
  void route_by(FakeGate::Logits logits, moe::RouterSpec router) {
    const DenseWeight none{Parameter(mx::zeros({1, 1, 1}), mx::float32)};
    block = std::make_shared<SparseMoe>(
        "FakeMoe",
        router,
        std::make_shared<FakeGate>(std::move(logits)),
        std::nullopt,
        std::make_unique<SwitchGlu>(none, none, none));
  }

  mx::array forward(const mx::array& tokens, Cache& cache, bool last_only)
      override {
    auto& state = static_cast<FakeCache&>(*cache.at(0));
    mx::array ids = mx::contiguous(tokens);
    mx::eval(ids);
    std::vector<float> rows;
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto token = static_cast<uint64_t>(ids.data<int>()[i]);
      state.hash = mixed(state.hash * 31 + token + 1);
      ++state.position;
      if (block) {
        block->gate->forward(
            mx::array({static_cast<float>(state.position)}, {1, 1}));
      }
      if (!last_only || i + 1 == ids.size()) {
        append_row(state, rows);
      }
    }
    const int length = static_cast<int>(rows.size()) / kVocab;
    return mx::array(rows.begin(), {1, length, kVocab}, mx::float32);
  }

  Cache make_cache() const override {
    Cache cache;
    cache.push_back(std::make_unique<FakeCache>());
    return cache;
  }

  std::shared_ptr<SparseMoe> block;
  bool patched = false;
  Fault stock_fault, patched_fault;

 private:
  void append_row(const FakeCache& state, std::vector<float>& rows) const {
    std::vector<float> row(kVocab);
    for (int i = 0; i < kVocab; ++i) {
      const uint64_t bits = mixed(state.hash + static_cast<uint64_t>(i) * 977);
      row[i] = static_cast<float>(bits >> 40) / float(1 << 21) - 4;
    }
    const Fault& fault = patched ? patched_fault : stock_fault;
    if (fault) {
      fault(row, state.position);
    }
    rows.insert(rows.end(), row.begin(), row.end());
  }
};

/// A model and the sides that switch its faults.
struct FakeModel {
  Model model;
  FakeNetwork* network;
  Sides sides;
  int threads = 4; // what the sides have set

  explicit FakeModel(Fault patched = {}, mx::Dtype dtype = mx::float32) {
    auto owned = std::make_unique<FakeNetwork>();
    network = owned.get();
    network->patched_fault = std::move(patched);
    model.network = std::move(owned);
    model.folder = "models/fake";
    model.dtype = dtype;
    model.info.family = "fake";
    model.info.quantization = "affine 4 bit, group 64";
    model.info.vocab_size = kVocab;
    model.info.weight_bytes = uint64_t{3} << 30;
    model.info.active_bytes = 1'000'000;
    model.info.num_parameters = 8'340'000'000;
    sides.patch = [this](Model&) {
      network->patched = true;
      PatchResult result;
      result.installed = {
          {"model.layers.0.feed_forward", "moe_mlp", 1e-7},
          {"model.layers.1.feed_forward", "moe_mlp", 1e-7},
          {"model.norm", "rmsnorm", 0}};
      return result;
    };
    sides.unpatch = [this](Model&) { network->patched = false; };
    // The oracle has no fault: stock's faults are its distance to the truth.
    sides.load_oracle = [] {
      auto oracle = std::make_unique<Model>();
      oracle->network = std::make_unique<FakeNetwork>();
      oracle->info.vocab_size = kVocab;
      return oracle;
    };
    sides.set_threads = [this](int count) { threads = count; };
    sides.threads = threads;
  }
  FakeModel(const FakeModel&) = delete;
};

inline ValidateOptions small_options() {
  ValidateOptions options;
  options.token_prompts = {{1, 2, 3}, {4}, {5, 6}};
  options.max_tokens = 12;
  options.runs = 2;
  return options;
}

/// A fault that adds `size` times a sine of its own for each logit.
inline Fault noise(float size, int seed) {
  return [=](std::vector<float>& row, int position) {
    for (int i = 0; i < kVocab; ++i) {
      row[i] += size * std::sin(float(i * 7 + position * 3 + seed * 11));
    }
  };
}

} // namespace zmlx::measure::testing
