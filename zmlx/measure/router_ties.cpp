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

} // namespace

double router_gap(
    const moe::RouterSpec& spec,
    std::span<const float> logits,
    const float* bias) {
  const auto chosen = static_cast<size_t>(spec.top_k);
  if (chosen >= logits.size() || spec.groups > 1) {
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

double least_router_gap(
    const moe::RouterSpec& spec,
    const mx::array& logits,
    const std::optional<mx::array>& bias) {
  const auto floats = [](const mx::array& x) {
    auto made = mx::contiguous(mx::astype(x, mx::float32));
    mx::eval(made);
    return made;
  };
  const auto rows = floats(logits);
  const auto biases = bias ? std::optional(floats(*bias)) : std::nullopt;
  const auto experts = static_cast<size_t>(rows.shape(-1));
  double least = kNone;
  for (size_t at = 0; at < rows.size(); at += experts) {
    const std::span row(rows.data<float>() + at, experts);
    least = std::min(
        least, router_gap(spec, row, biases ? biases->data<float>() : nullptr));
  }
  return least;
}

struct RouterWatch::Watched {
  SparseMoe& block;
  std::shared_ptr<KeepingGate> gate;
};

RouterWatch::RouterWatch(Network& network) {
  walk(network, [&](const std::string&, Child& child) {
    if (auto* block = dynamic_cast<SparseMoe*>(child.module)) {
      auto gate = std::make_shared<KeepingGate>(block->gate);
      routers_.emplace_back(new Watched{*block, gate}); // for Clang 14
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
    for (const auto& logits : router->gate->seen) {
      const double gap =
          least_router_gap(block.router, logits, block.expert_bias);
      least = std::min(least, gap);
    }
    router->gate->seen.clear();
  }
  return least;
}

std::optional<RouterTie> find_tie(
    Model& model,
    const PromptResult& prompt,
    const KVQuantization& kv,
    int step) {
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
