// SPDX-License-Identifier: MIT
// How the next token is drawn from logits: mlx_lm's filters, and draws that
// depend on the seed and the step alone.
#pragma once

#include <cstdint>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// How the next token is drawn; temperature 0 takes the most likely one (the
/// lowest id among equals). Filters are applied in mlx_lm's order: top_p,
/// min_p, top_k.
struct SamplerOptions {
  float temperature = 0;
  float top_p = 0; // in (0, 1); 0 or 1: off
  float min_p = 0; // in [0, 1]; 0: off
  int top_k = 0; // 0 or the vocabulary's size and more: off
  uint64_t seed = 0;
};

/// Draws tokens. Holds no state: the same seed, step and logits give the same
/// token whatever was drawn before.
class Sampler {
 public:
  /// Throws std::invalid_argument when an option is out of its range.
  explicit Sampler(const SamplerOptions& options = {});

  /// The token at a step, () uint32, of logits (vocab,) float32.
  mx::array operator()(const mx::array& logits, uint64_t step) const;

  const SamplerOptions& options() const {
    return options_;
  }

 private:
  SamplerOptions options_;
};

/// Each filter takes log probabilities (vocab,) float32 and sets what it drops
/// to -inf (mlx_lm.sample_utils).

/// Keeps the most likely tokens whose mass before them is below top_p of the
/// total; tokens as likely as the last one kept stay too.
mx::array keep_top_p(const mx::array& logprobs, float top_p);

/// Keeps tokens at least min_p times as likely as the most likely one.
mx::array keep_min_p(const mx::array& logprobs, float min_p);

/// Keeps exactly the top_k most likely tokens.
mx::array keep_top_k(const mx::array& logprobs, int top_k);

} // namespace zmlx
