// SPDX-License-Identifier: MIT
// Steps that were begun before their token was known.
#include "zmlx/model/decode/cpu_lookahead.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/demo_model.h"
#include "zmlx/model/decode/cpu_executor.h"
#include "zmlx/model/decode/lower.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::decode {
namespace {

std::shared_ptr<const Program> program() {
  return lower(*demo()->network).program;
}

/// A sequence with caches of its own, in plain memory.
class Sequence {
 public:
  explicit Sequence(CpuExecutor& executor) : executor_(executor) {
    for (const auto& stage : executor.program().stages) {
      if (const auto* conv = std::get_if<ConvStage>(&stage)) {
        auto& inputs = room(conv->layer, conv->taps.size());
        state(conv->layer).inputs = inputs.data();
      } else if (const auto* attend = std::get_if<AttendStage>(&stage)) {
        const auto& spec = attend->spec;
        const size_t size = size_t{kCapacity} *
            static_cast<size_t>(spec.kv_heads) *
            static_cast<size_t>(spec.head_dim);
        state(attend->layer).capacity = kCapacity;
        for (auto member : {&LayerState::keys, &LayerState::values}) {
          auto& rows = state(attend->layer).*member;
          rows.floats = room(attend->layer, size).data();
          rows.head_dim = spec.head_dim;
        }
      }
    }
    logits_.resize(static_cast<size_t>(executor.program().vocab));
    step_.logits = logits_.data();
  }

  /// Logits after one more token.
  const std::vector<float>& add(int32_t token) {
    step_.tokens = &token;
    executor_.run(step_);
    ++step_.position;
    return logits_;
  }

  int32_t likeliest() const {
    const auto most = std::max_element(logits_.begin(), logits_.end());
    return static_cast<int32_t>(most - logits_.begin());
  }

  /// Another past, as far as convolutions remember it.
  void forget() {
    for (auto& layer : step_.layers) {
      if (layer.inputs) {
        layer.inputs[0] += 1;
      }
    }
  }

 private:
  static constexpr int kCapacity = 64;

  LayerState& state(int layer) {
    const auto index = static_cast<size_t>(layer);
    step_.layers.resize(std::max(step_.layers.size(), index + 1));
    return step_.layers[index];
  }
  std::vector<float>& room(int, size_t size) {
    rooms_.push_back(std::make_unique<std::vector<float>>(size, 0.0f));
    return *rooms_.back();
  }

  CpuExecutor& executor_;
  Step step_;
  std::vector<float> logits_;
  std::vector<std::unique_ptr<std::vector<float>>> rooms_;
};

using Logits = std::vector<std::vector<float>>;

/// Steps of two sequences on one executor: mostly the likeliest token of the
/// sequence, sometimes another; now and then the other sequence comes between,
/// with the token that was guessed for this one, or the past is another than it
/// was.
Logits run(int threads, int micros, int64_t* begun = nullptr) {
  set_num_threads(threads);
  CpuExecutor executor(program());
  Sequence one(executor), other(executor);
  std::mt19937 random(7);
  Logits all{one.add(5), other.add(9)};
  for (int i = 0; i < 40; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(micros));
    const int32_t guess = one.likeliest();
    switch (random() % 8) {
      case 0:
        all.push_back(one.add(static_cast<int32_t>(random() % 500)));
        break;
      case 1:
        all.push_back(other.add(guess));
        break;
      case 2:
        one.forget();
        [[fallthrough]];
      default:
        all.push_back(one.add(guess));
    }
  }
  if (begun) {
    *begun = executor.steps_begun_ahead();
  }
  return all;
}

TEST(Lookahead, ChangesNoBit) {
  const auto expected = run(1, 0);
  for (int threads : {2, 3, 5}) {
    for (int micros : {0, 20, 60, 3000}) { // called back anywhere; done
      EXPECT_EQ(run(threads, micros), expected) << threads << ", " << micros;
    }
  }
}

TEST(Lookahead, BeginsStepsOfTheLikeliestTokenOnly) {
  int64_t begun = 0;
  run(1, 0, &begun);
  EXPECT_EQ(begun, 0) << "there is no other thread";
  run(2, 3000, &begun);
  EXPECT_GT(begun, 15);
  EXPECT_LT(begun, 35) << "of 40, some of which have another token or past";
}

TEST(Lookahead, RestsAfterWrongGuesses) {
  set_num_threads(2);
  CpuExecutor executor(program());
  Sequence one(executor);
  one.add(5);
  const auto pause = [] {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  };
  for (int i = 0; i < 6; ++i) {
    pause();
    one.add((one.likeliest() + 1) % 500);
  }
  const auto before = executor.steps_begun_ahead();
  pause();
  one.add(one.likeliest());
  EXPECT_EQ(executor.steps_begun_ahead(), before) << "it had stopped guessing";
  for (int i = 0; i < 40; ++i) {
    pause();
    one.add(one.likeliest());
  }
  EXPECT_GT(executor.steps_begun_ahead(), before) << "it tries again";
}

TEST(Lookahead, IsDroppedBeforeAStepWhoseStagesAreTimed) {
  set_num_threads(2);
  CpuExecutor executor(program());
  Sequence one(executor);
  one.add(5);
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  executor.start_timing();
  one.add(one.likeliest());
  EXPECT_EQ(executor.steps_begun_ahead(), 0);
}

TEST(Lookahead, LetsAnExecutorGo) {
  set_num_threads(3);
  for (int i = 0; i < 20; ++i) {
    CpuExecutor executor(program());
    Sequence(executor).add(i);
  }
}

} // namespace
} // namespace zmlx::decode
