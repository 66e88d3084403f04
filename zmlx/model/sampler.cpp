// SPDX-License-Identifier: MIT
#include "zmlx/model/sampler.h"

#include <cmath>
#include <limits>

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

// A key of its own for each step (splitmix64), so that no draw depends on how
// many came before it.
mx::array step_key(uint64_t seed, uint64_t step) {
  uint64_t z = seed + (step + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return mx::random::key(z ^ (z >> 31));
}

mx::array minus_infinity() {
  return mx::array(-std::numeric_limits<float>::infinity());
}

} // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  // Written so that a NaN fails each test.
  if (!(options.temperature >= 0 && std::isfinite(options.temperature))) {
    invalid(
        "sampler",
        "temperature must be 0 or more, got ",
        options.temperature,
        '.');
  }
  if (!(options.top_p >= 0 && options.top_p <= 1)) {
    invalid("sampler", "top_p must be in 0..1, got ", options.top_p, '.');
  }
  if (!(options.min_p >= 0 && options.min_p <= 1)) {
    invalid("sampler", "min_p must be in 0..1, got ", options.min_p, '.');
  }
  if (options.top_k < 0) {
    invalid("sampler", "top_k must be 0 or more, got ", options.top_k, '.');
  }
}

mx::array Sampler::operator()(const mx::array& logits, uint64_t step) const {
  if (options_.temperature == 0) {
    return mx::argmax(logits);
  }
  mx::array kept = logits - mx::logsumexp(logits, /* keepdims= */ true);
  if (options_.top_p > 0 && options_.top_p < 1) {
    kept = keep_top_p(kept, options_.top_p);
  }
  if (options_.min_p > 0) {
    kept = keep_min_p(kept, options_.min_p);
  }
  if (options_.top_k > 0 && options_.top_k < logits.shape(-1)) {
    kept = keep_top_k(kept, options_.top_k);
  }
  const float scale = static_cast<float>(1.0 / options_.temperature);
  return mx::random::categorical(
      kept * mx::array(scale), -1, step_key(options_.seed, step));
}

mx::array keep_top_p(const mx::array& logprobs, float top_p) {
  const mx::array rising = mx::sort(logprobs, -1);
  const mx::array probs = mx::exp(rising);
  // An exclusive sum from the likely end: 0 at the most likely token, so that
  // one is never dropped.
  const mx::array above =
      mx::cumsum(probs, -1, /* reverse= */ true, /* inclusive= */ false);
  const mx::array first = mx::array({0});
  const mx::array total =
      mx::take(above, first, -1) + mx::take(probs, first, -1);
  const mx::array dropped =
      mx::sum(mx::greater_equal(above, mx::array(top_p) * total), -1, true);
  const mx::array threshold = mx::take_along_axis(rising, dropped, -1);
  return mx::where(mx::less(logprobs, threshold), minus_infinity(), logprobs);
}

mx::array keep_min_p(const mx::array& logprobs, float min_p) {
  const float offset = static_cast<float>(std::log(double(min_p)));
  const mx::array threshold = mx::max(logprobs, -1, true) + mx::array(offset);
  return mx::where(mx::less(logprobs, threshold), minus_infinity(), logprobs);
}

mx::array keep_top_k(const mx::array& logprobs, int top_k) {
  const int vocab = logprobs.shape(-1);
  const mx::array order =
      mx::argpartition(mx::negative(logprobs), top_k - 1, -1);
  const mx::array dropped = mx::slice(order, {top_k}, {vocab});
  return mx::put_along_axis(logprobs, dropped, minus_infinity(), -1);
}

} // namespace zmlx
