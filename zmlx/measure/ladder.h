// SPDX-License-Identifier: MIT
// How near one stream of logits is to another: bits, divergence and flips, step
// by step and summed up.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace zmlx::measure {

/// Two sides' logits for one token.
struct StepDifference {
  bool bitwise_equal = false;
  /// No NaN and no +inf on either side.
  bool finite = false;
  int stock_token = 0, patched_token = 0; // most likely, lowest id of equals
  /// How far stock's most likely token leads the next one, in logits.
  double margin = 0;
  /// Divergence of patched from stock, KL(stock || patched), in nats: float64
  /// arithmetic on the float32 logits. NaN when not finite.
  double kld = 0;
};

/// Compares logits (vocab,) of two sides. Throws std::invalid_argument unless
/// both have the same length of at least 2.
StepDifference compare_step(
    std::span<const float> stock,
    std::span<const float> patched);

/// KL(reference || other) of the softmax of logits (vocab,), in nats.
double divergence(
    std::span<const float> reference,
    std::span<const float> other);

/// A step at which the most likely token changed.
struct Flip {
  int prompt = 0, step = 0;
  int stock_token = 0, patched_token = 0;
  double margin = 0; // stock's
  int oracle_token = -1; // the oracle's most likely token; -1: no oracle

  /// The oracle sides with patched: the error was stock's.
  bool oracle_agrees() const {
    return oracle_token == patched_token;
  }
};

/// Levels L0 and L2: patched against stock along stock's own tokens.
struct Closeness {
  size_t steps = 0;
  size_t equal_steps = 0; // bitwise
  size_t unusable_steps = 0; // NaN or +inf
  std::vector<double> klds; // one a step
  std::vector<Flip> flips;

  /// oracle_token: its most likely token at this step, -1 without an oracle.
  void add(
      int prompt,
      int step,
      const StepDifference& difference,
      int oracle_token = -1);

  /// NaN when a step was unusable, as all that is made of it.
  double mean_kld() const;
  double kld_quantile(double fraction) const;
  double max_kld() const;
  /// The part of steps with the same most likely token, and its standard
  /// error sqrt(p (1 - p) / steps).
  double same_top() const;
  double same_top_error() const;
};

/// Level L3: both sides against a float32 oracle along stock's tokens.
class OracleErrors {
 public:
  void add(
      std::span<const float> oracle,
      std::span<const float> stock,
      std::span<const float> patched);

  size_t steps() const {
    return stock_klds_.size();
  }
  /// Root mean square of logit differences to the oracle over all steps.
  double stock_rms() const;
  double patched_rms() const;
  /// Mean KL(oracle || side).
  double stock_kld() const;
  double patched_kld() const;
  /// Standard error of the mean of (patched's - stock's) divergence.
  double kld_difference_error() const;
  /// How far stock's margin between its most likely token and its next, or
  /// the oracle's most likely one, was at most from the oracle's margin between
  /// the same two: flips of a smaller margin lie within stock's own error.
  double margin_noise() const {
    return margin_noise_;
  }

 private:
  double stock_squares_ = 0, patched_squares_ = 0;
  size_t logits_ = 0;
  double margin_noise_ = 0;
  std::vector<double> stock_klds_, patched_klds_;
};

} // namespace zmlx::measure
