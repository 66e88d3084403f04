// SPDX-License-Identifier: MIT
// A router as data: how logits become the experts of a token and their weights.
#pragma once

#include <vector>

namespace zmlx::moe {

/// Scores come from logits; top_k experts are chosen by score (plus bias, where
/// there is one) and weighted. Ties go to the lowest index.
struct RouterSpec {
  enum class Score { Softmax, Sigmoid };
  Score score = Score::Softmax;
  int top_k = 1;
  /// The bias takes part in the weight too, not only in the selection: LFM2-MoE
  /// of mlx_lm up to 0.31.3. Needs a bias to matter.
  bool weight_from_biased = false;
  /// Divide the weights by (their sum + epsilon).
  bool renormalise = true;
  float epsilon = 0;
  /// Multiplies the weights at the end.
  float scale = 1;
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

} // namespace zmlx::moe
