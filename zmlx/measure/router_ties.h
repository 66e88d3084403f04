// SPDX-License-Identifier: MIT
// Where rounding alone decides which experts a token is sent to.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "zmlx/kernels/moe/router.h"
#include "zmlx/measure/validate.h"

namespace zmlx::measure {

/// How near a router comes to choosing other experts: by what part of its
/// largest logit the last chosen expert's logit and the first unchosen one's
/// must move towards one another. Scores, and so the distance, are taken to
/// first order. logits: (experts); bias: (experts) or null. Infinite where all
/// are chosen, and of routers that choose groups of experts first.
double router_gap(
    const moe::RouterSpec& spec,
    std::span<const float> logits,
    const float* bias);

/// The least of it over rows of logits (..., experts); bias: (experts). Float
/// types. Evaluates them.
double least_router_gap(
    const moe::RouterSpec& spec,
    const mx::array& logits,
    const std::optional<mx::array>& bias);

/// Sees the logits of a stock network's routers while it lives.
class RouterWatch {
 public:
  explicit RouterWatch(Network& network);
  RouterWatch(const RouterWatch&) = delete;
  RouterWatch& operator=(const RouterWatch&) = delete;
  ~RouterWatch();

  /// The least router_gap() of all rows since the last call; infinite without.
  double least_gap();

 private:
  struct Watched;
  std::vector<std::unique_ptr<Watched>> routers_;
};

/// How near stock's routers were to a tie at a step: of that token's row, or of
/// all rows of the prompt if it is the first one. Runs the model, which must be
/// stock, once more up to there. None where no router can be tied.
std::optional<RouterTie> find_tie(
    Model& model,
    const PromptResult& prompt,
    const KVQuantization& kv,
    int step);

} // namespace zmlx::measure
