// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cpu_lookahead.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>

namespace zmlx::decode {
namespace {

// After this many wrong guesses (tokens are drawn, say) one of some steps is
// begun only: it costs memory bandwidth that somebody else may want.
constexpr int kMisses = 4;
constexpr int kSteps = 16;

} // namespace

Lookahead::Lookahead(
    const Program& program,
    Workspace& work,
    const std::vector<CpuStagePtr>& stages,
    const std::vector<const CpuStage*>& next)
    : work_(work), stages_(stages), next_(next) {
  for (const auto& stage : program.stages) {
    if (std::holds_alternative<AttendStage>(stage) ||
        std::holds_alternative<CombineStage>(stage) ||
        std::holds_alternative<HeadStage>(stage)) {
      break;
    }
    if (const auto* conv = std::get_if<ConvStage>(&stage)) {
      const auto layer = static_cast<size_t>(conv->layer);
      const std::vector<float> values(
          static_cast<size_t>(conv->taps.shape(0) - 1) *
          static_cast<size_t>(conv->taps.shape(1)));
      memories_.push_back({end_, layer, values, values});
    }
    ++end_;
  }
  for (auto& memory : memories_) {
    step_.layers.resize(std::max(step_.layers.size(), memory.layer + 1));
    step_.layers[memory.layer].inputs = memory.after.data();
  }
  step_.tokens = &token_;
}

void Lookahead::keep(ThreadTeam& team) {
  const bool wanted = misses_ < kMisses || misses_ % kSteps == 0;
  misses_ += wanted ? 0 : 1;
  team_ = wanted ? &team : nullptr;
  for (auto& memory : memories_) {
    const float* inputs = work_.step.layers[memory.layer].inputs;
    std::copy_n(inputs, memory.before.size(), memory.before.data());
  }
}

void Lookahead::run(int thread) {
  if (!team_) {
    return;
  }
  if (thread == 1) {
    const auto best = std::max_element(
        work_.likeliest.begin(), work_.likeliest.end(), [](auto& a, auto& b) {
          return a.logit < b.logit;
        });
    token_ = best->token;
    for (auto& memory : memories_) {
      memory.after = memory.before;
    }
    threads_ = team_->size();
    work_.start_phases(threads_);
  }
  Lane lane{work_, *team_, thread, step_, true};
  if (!lane.barrier() || token_ < 0) {
    return;
  }
  for (size_t i = 0; i < end_; ++i) {
    if (thread == 1) {
      reached_ = i;
    }
    lane.next_stage = next_[i];
    stages_[i]->run(lane);
    if (!lane.barrier()) {
      return;
    }
  }
}

size_t Lookahead::take(const Step& step, int threads) {
  const size_t reached = std::exchange(reached_, 0);
  if (reached == 0) {
    return 0;
  }
  if (!agrees(step, threads)) {
    ++misses_;
    return 0;
  }
  misses_ = 0;
  for (const auto& memory : memories_) {
    if (memory.stage < reached) {
      std::copy_n(
          memory.after.data(),
          memory.after.size(),
          step.layers[memory.layer].inputs);
    }
  }
  return reached;
}

void Lookahead::drop() {
  reached_ = 0;
}

bool Lookahead::agrees(const Step& step, int threads) const {
  if (step.batch != 1 || step.tokens[0] != token_ || threads != threads_) {
    return false;
  }
  return std::all_of(
      memories_.begin(), memories_.end(), [&](const Memory& memory) {
        const size_t nbytes = memory.before.size() * sizeof(float);
        const float* inputs = step.layers[memory.layer].inputs;
        return std::memcmp(inputs, memory.before.data(), nbytes) == 0;
      });
}

} // namespace zmlx::decode
