// SPDX-License-Identifier: MIT
#include "zmlx/measure/stepper.h"

#include "zmlx/model/generate.h"

namespace zmlx::measure {
namespace {

mx::array evaluated(mx::array logits) {
  logits = mx::contiguous(mx::astype(mx::flatten(logits), mx::float32));
  mx::eval(logits);
  return logits;
}

} // namespace

Stepper::Stepper(
    Model& model,
    const std::vector<int>& prompt,
    const KVQuantization& kv)
    : model_(model), cache_(model.network->make_cache()), kv_(kv) {
  logits_ = evaluated(prefill(model_, cache_, prompt, 512, {}, kv));
}

std::span<const float> Stepper::logits() const {
  return {logits_->data<float>(), logits_->size()};
}

void Stepper::feed(int token) {
  const mx::array input(&token, {1, 1}, mx::int32);
  logits_ = evaluated(model_.network->forward(input, cache_, true));
  quantize(cache_, kv_);
  eval(cache_);
}

int most_likely(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    // The second test lets a number take the place of a NaN at the front.
    if (logits[i] > logits[best] ||
        (logits[best] != logits[best] && logits[i] == logits[i])) {
      best = i;
    }
  }
  return static_cast<int>(best);
}

} // namespace zmlx::measure
