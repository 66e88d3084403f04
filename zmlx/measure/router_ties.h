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
/// are chosen.
double router_gap(
    const moe::RouterSpec& spec,
    std::span<const float> logits,
    const float* bias);

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

/// The first step at which patched parts from stock, by its token or by more
/// than `kld` (nats), and how near stock's routers were to a tie there: of that
/// token's row, or of all rows of the prompt if it is the first step. Runs the
/// model, which must be stock, once more up to there. None where it does not
/// part or has no routers.
std::optional<RouterTie> find_tie(
    Model& model,
    const PromptResult& prompt,
    const KVQuantization& kv,
    double kld);

} // namespace zmlx::measure
