// SPDX-License-Identifier: MIT
#include "zmlx/measure/router_ties.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "zmlx/measure/stepper.h"
#include "zmlx/model/layers/moe.h"

namespace zmlx::measure {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

/// A router's projection that keeps what it makes.
class KeepingGate : public Layer {
 public:
  explicit KeepingGate(LayerSlot gate) : gate(std::move(gate)) {}
  std::string_view kind() const override {
    return gate->kind();
  }
  const Module& stock_module() const override {
    return gate->stock_module();
  }
  mx::array forward(const mx::array& x) const override {
    seen.push_back(gate->forward(x));
    return seen.back();
  }

  LayerSlot gate;
  mutable std::vector<mx::array> seen;
};

std::vector<double> scores_of(
    moe::RouterSpec::Score kind,
    std::span<const float> logits) {
  std::vector<double> scores;
  if (kind == moe::RouterSpec::Score::Sigmoid) {
    for (const double z : logits) {
      scores.push_back(1 / (1 + std::exp(-z)));
    }
    return scores;
  }
  const double most = *std::max_element(logits.begin(), logits.end());
  for (const double z : logits) {
    scores.push_back(std::exp(z - most));
  }
  const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
  for (double& score : scores) {
    score /= sum;
  }
  return scores;
}

// The first step that parts, or -1. A NaN parts.
int departure(const PromptResult& prompt, double kld) {
  const auto& klds = prompt.closeness.klds;
  const auto& flips = prompt.closeness.flips;
  const int flip =
      flips.empty() ? static_cast<int>(klds.size()) : flips.front().step;
  for (int step = 0; step < static_cast<int>(klds.size()); ++step) {
    if (step == flip || !(klds[static_cast<size_t>(step)] <= kld)) {
      return step;
    }
  }
  return -1;
}

} // namespace

double router_gap(
    const moe::RouterSpec& spec,
    std::span<const float> logits,
    const float* bias) {
  const auto chosen = static_cast<size_t>(spec.top_k);
  if (chosen >= logits.size()) {
    return kNone;
  }
  const auto scores = scores_of(spec.score, logits);
  const auto rank = [&](size_t i) {
    return scores[i] + (bias ? double{bias[i]} : 0);
  };
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return rank(a) > rank(b);
  });
  const size_t last = order[chosen - 1], next = order[chosen];
  double most = 0;
  for (const double z : logits) {
    most = std::max(most, std::abs(z));
  }
  // Of one's score, as both logits move towards one another.
  const auto slope = [&](size_t i, size_t other) {
    const bool alone = spec.score == moe::RouterSpec::Score::Sigmoid;
    return scores[i] * (1 - scores[i] + (alone ? 0 : scores[other]));
  };
  return (rank(last) - rank(next)) /
      (most * (slope(last, next) + slope(next, last)));
}

struct RouterWatch::Watched {
  SparseMoe& block;
  std::shared_ptr<KeepingGate> gate;
};

RouterWatch::RouterWatch(Network& network) {
  walk(network, [&](const std::string&, Child& child) {
    if (auto* block = dynamic_cast<SparseMoe*>(child.module)) {
      auto gate = std::make_shared<KeepingGate>(block->gate);
      routers_.push_back(std::make_unique<Watched>(*block, gate));
    }
  });
  for (auto& router : routers_) { // not while their children are walked
    router->block.gate = router->gate;
  }
}

RouterWatch::~RouterWatch() {
  for (auto& router : routers_) {
    router->block.gate = router->gate->gate;
  }
}

double RouterWatch::least_gap() {
  double least = kNone;
  for (auto& router : routers_) {
    const auto& block = router->block;
    std::optional<mx::array> bias;
    if (block.expert_bias) {
      bias = mx::contiguous(mx::astype(*block.expert_bias, mx::float32));
      mx::eval(*bias);
    }
    for (const auto& seen : router->gate->seen) {
      auto logits = mx::contiguous(mx::astype(seen, mx::float32));
      mx::eval(logits);
      const auto experts = static_cast<size_t>(logits.shape(-1));
      for (size_t at = 0; at < logits.size(); at += experts) {
        const std::span row(logits.data<float>() + at, experts);
        least = std::min(
            least,
            router_gap(
                block.router, row, bias ? bias->data<float>() : nullptr));
      }
    }
    router->gate->seen.clear();
  }
  return least;
}

std::optional<RouterTie> find_tie(
    Model& model,
    const PromptResult& prompt,
    const KVQuantization& kv,
    double kld) {
  const int step = departure(prompt, kld);
  if (step < 0) {
    return std::nullopt;
  }
  RouterWatch watch(*model.network);
  Stepper stepper(model, prompt.prompt, kv);
  double gap = watch.least_gap();
  for (int i = 0; i < step; ++i) {
    stepper.feed(prompt.stock[static_cast<size_t>(i)]);
    gap = watch.least_gap();
  }
  return gap < kNone ? std::optional(RouterTie{step, gap}) : std::nullopt;
}

} // namespace zmlx::measure
