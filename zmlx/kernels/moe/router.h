// SPDX-License-Identifier: MIT
// A router as data: how logits become the experts of a token and their weights.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx::moe {

namespace mx = mlx::core;

/// Scores come from logits; top_k experts are chosen by score (plus bias, where
/// there is one) and weighted. Ties go to the lowest index. Every router of
/// mlx_lm's models is a row of this.
struct RouterSpec {
  enum class Score {
    Softmax, // over all experts
    Sigmoid,
    ChosenSoftmax, // chosen by logit, then a softmax over the chosen: Mixtral
    /// Chosen by logit, best first; the weight of each is its softmax among
    /// those not chosen before whose logit is near it: PhiMoE.
    SparseMixer,
  };
  enum class GroupScore { TopTwo, Largest }; // the sum of the two largest

  Score score = Score::Softmax;
  int top_k = 1;
  /// Sigmoids are chosen by logit, which differs where they saturate: Llama 4.
  bool select_on_logits = false;
  /// The bias takes part in the weight too, not only in the selection: LFM2-MoE
  /// of mlx_lm up to 0.31.3. Needs a bias to matter.
  bool weight_from_biased = false;
  /// More than one: experts stand in so many equal groups, and scores outside
  /// the best chosen_groups of them count as 0 in the selection.
  int groups = 1, chosen_groups = 1;
  GroupScore group_score = GroupScore::TopTwo;
  /// Divide the weights by (their sum + epsilon), or by the larger of the two.
  bool renormalise = true;
  float epsilon = 0;
  bool epsilon_is_floor = false;
  /// Multiplies the weights at the end.
  float scale = 1;
  /// The weight of the only expert multiplies its input, not its output. Heeded
  /// by moe_mlp(), not by route(): Llama 4.
  bool weight_on_input = false;
  /// SparseMixer: near is within twice this part of the larger logit.
  float jitter = 0.01f;

  bool operator==(const RouterSpec&) const = default;
};

/// Routes one token on the CPU in float32. logits: (experts); bias: (experts)
/// or null; ids and weights: (top_k), best first.
void route(
    const RouterSpec& spec,
    const float* logits,
    const float* bias,
    int experts,
    int* ids,
    float* weights);

/// Routes tokens: weights (..., top_k) float32 and experts (..., top_k) uint32,
/// best first, of logits (..., experts) float32, float16 or bfloat16 and bias
/// (experts) float. Float32 inside. One primitive on every device.
/// Differentiable in logits, and in a bias that is part of the weights.
/// Throws std::invalid_argument on a mismatch.
std::pair<mx::array, mx::array> route(
    const mx::array& logits,
    const RouterSpec& spec,
    const std::optional<mx::array>& bias = std::nullopt);

/// The weights of experts that are chosen already, of composed MLX operations
/// in logits' type: what route() is differentiated by.
mx::array weights_of(
    const mx::array& logits,
    const RouterSpec& spec,
    const std::optional<mx::array>& bias,
    const mx::array& chosen);

/// Why a router of so many experts cannot be, or "".
std::string why_not_a_router(const RouterSpec& spec, int experts);

} // namespace zmlx::moe
