// SPDX-License-Identifier: MIT
// Runs a model token by token with the caller choosing each token, so that two
// models can be led along one stream.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "zmlx/model/model.h"
#include "zmlx/model/quantized_cache.h"

namespace zmlx::measure {

/// A model in the middle of a text. The model must outlive it and stay as it
/// is (patched or stock) while it is used.
class Stepper {
 public:
  /// Reads the prompt. Throws std::invalid_argument as prefill() does.
  Stepper(
      Model& model,
      const std::vector<int>& prompt,
      const KVQuantization& kv = {});

  /// Logits (vocab,) of the next token; valid until feed().
  std::span<const float> logits() const;

  /// Appends a token.
  void feed(int token);

 private:
  Model& model_;
  Cache cache_;
  KVQuantization kv_;
  std::optional<mx::array> logits_; // (vocab,) float32, evaluated
};

/// The index of the largest logit, the lowest one among equals; NaN never
/// wins. 0 when all are NaN.
int most_likely(std::span<const float> logits);

} // namespace zmlx::measure
