// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/reference.h"

namespace zmlx::reference {

mx::array number(double value, const mx::array& like) {
  return mx::array(value, like.dtype());
}

mx::array exp(const mx::array& x) {
  if (x.dtype() != mx::float64) {
    return mx::exp(x);
  }
  // expm1(x) + 1 cancels below zero, where 1 / exp(-x) does not. Each branch
  // sees values that it can take, or its gradient would be 0 * inf.
  const mx::array zero = number(0, x), one = number(1, x);
  const mx::array negative = x < zero;
  const mx::array above = mx::expm1(mx::where(negative, zero, x)) + one;
  const mx::array below = mx::expm1(mx::where(negative, -x, zero)) + one;
  return mx::where(negative, one / below, above);
}

mx::array sigmoid(const mx::array& x) {
  if (x.dtype() != mx::float64) {
    return mx::sigmoid(x);
  }
  const mx::array one = number(1, x);
  return one / (one + reference::exp(-x));
}

mx::array silu(const mx::array& x) {
  return x * reference::sigmoid(x);
}

mx::array gelu_tanh(const mx::array& x) {
  const mx::array u =
      number(0.7978845608028654, x) * (x + number(0.044715, x) * x * x * x);
  return number(0.5, x) * x * (number(1, x) + mx::tanh(u));
}

mx::array softplus(const mx::array& x) {
  return x.dtype() == mx::float64 ? mx::log1p(reference::exp(x))
                                  : mx::logaddexp(x, number(0, x));
}

mx::array softmax(const mx::array& x) {
  if (x.dtype() != mx::float64) {
    return mx::softmax(x, -1);
  }
  const mx::array e = reference::exp(x - mx::max(x, -1, true));
  return e / mx::sum(e, -1, true);
}

mx::array ranks(const mx::array& scores) {
  const mx::array keys =
      mx::where(mx::isnan(scores), number(-INFINITY, scores), scores);
  const mx::array own = mx::expand_dims(keys, -1);
  const mx::array other = mx::expand_dims(keys, -2);
  const mx::array place = mx::arange(keys.shape(-1));
  const mx::array lower = mx::expand_dims(place, 0) < mx::expand_dims(place, 1);
  const mx::array before =
      mx::logical_or(other > own, mx::logical_and(other == own, lower));
  return mx::sum(mx::astype(before, mx::int32), -1);
}

mx::array best(const mx::array& scores, int k) {
  const mx::array order = mx::argsort(ranks(scores), -1);
  mx::Shape end = order.shape();
  end.back() = k;
  return mx::slice(order, mx::Shape(order.ndim(), 0), end);
}

mx::array rms_norm(const mx::array& x, const mx::array& weight, double eps) {
  if (x.dtype() != mx::float64) {
    return mx::fast::rms_norm(
        x, mx::astype(weight, x.dtype()), static_cast<float>(eps));
  }
  const mx::array mean = mx::mean(mx::square(x), -1, true);
  return x * mx::rsqrt(mean + number(eps, x)) * weight;
}

mx::array dequantized(
    const mx::array& words,
    const mx::array& scales,
    const mx::array& biases,
    const Params& params) {
  const bool wide = scales.dtype() == mx::float64;
  const auto narrow = [&](const mx::array& x) {
    return wide ? mx::astype(x, mx::float32) : x;
  };
  return mx::astype(
      mx::dequantize(
          words,
          narrow(scales),
          narrow(biases),
          whole(params, "group_size"),
          whole(params, "bits")),
      scales.dtype());
}

mx::array quantized_matmul(
    const mx::array& x,
    const mx::array& words,
    const mx::array& scales,
    const mx::array& biases,
    const Params& params) {
  if (x.dtype() != mx::float64) {
    return mx::quantized_matmul(
        x,
        words,
        mx::astype(scales, x.dtype()),
        mx::astype(biases, x.dtype()),
        true,
        whole(params, "group_size"),
        whole(params, "bits"));
  }
  return mx::matmul(
      x, mx::transpose(dequantized(words, scales, biases, params)));
}

int whole(const Params& params, const char* name) {
  return static_cast<int>(params.at(name));
}

} // namespace zmlx::reference
