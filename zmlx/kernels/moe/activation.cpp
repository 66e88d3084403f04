// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/activation.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/kernels/moe/activation.cpp"
#define HWY_WANT_AVX3_DL 1
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/kernels/common/reference.h"
#include "zmlx/runtime/simd_double-inl.h"
#include "zmlx/runtime/simd_float-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::moe::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace math = zmlx::simd::HWY_NAMESPACE;

struct Silu {
  template <class D, class V>
  V operator()(D d, V x) const {
    return hn::Mul(x, math::Sigmoid(d, x));
  }
};

struct GeluTanh {
  template <class D, class V>
  V operator()(D d, V x) const {
    const auto half = hn::Set(d, 0.5f);
    const auto cube = hn::Mul(hn::Mul(x, x), x);
    const auto inside = hn::Mul(
        hn::Set(d, 0.7978845608f), hn::MulAdd(hn::Set(d, 0.044715f), cube, x));
    return hn::Mul(
        hn::Mul(half, x), hn::Add(hn::Set(d, 1.0f), math::Tanh(d, inside)));
  }
};

struct Gelu {
  template <class D, class V>
  V operator()(D d, V x) const {
    const auto erf = math::Erf(d, hn::Mul(x, hn::Set(d, 0.7071067811865475f)));
    return hn::Mul(
        hn::Mul(hn::Set(d, 0.5f), x), hn::Add(hn::Set(d, 1.0f), erf));
  }
};

struct Relu2 {
  template <class D, class V>
  V operator()(D d, V x) const {
    // The zero first, so that NaN stays.
    const auto above = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
    return hn::Mul(above, above);
  }
};

constexpr int64_t kMostLanes = HWY_MAX_BYTES / sizeof(float);

/// out = step(d, gate, up) over whole vectors, the last filled up with zeros.
template <class Step>
void for_each_vector(
    const float* gate,
    const float* up,
    float* out,
    int64_t count,
    const Step& step) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto u = hn::LoadU(d, up + i);
    hn::StoreU(step(d, gate ? hn::LoadU(d, gate + i) : u, u), d, out + i);
  }
  if (i < count) {
    HWY_ALIGN float rest[2][kMostLanes] = {};
    std::copy(up + i, up + count, rest[0]);
    if (gate) {
      std::copy(gate + i, gate + count, rest[1]);
    }
    const auto u = hn::Load(d, rest[0]);
    hn::Store(step(d, gate ? hn::Load(d, rest[1]) : u, u), d, rest[0]);
    std::copy(rest[0], rest[0] + (count - i), out + i);
  }
}

template <class Function>
void apply(
    const Function& f,
    const float* gate,
    const float* up,
    float* out,
    int64_t count) {
  for_each_vector(gate, up, out, count, [&](auto d, auto g, auto u) {
    return gate ? hn::Mul(f(d, g), u) : f(d, u);
  });
}

void clamped_swiglu(
    const Activation& activation,
    const float* gate,
    const float* up,
    float* out,
    int64_t count) {
  const float limit = activation.limit;
  for_each_vector(gate, up, out, count, [&](auto d, auto gated, auto linear) {
    const auto g = math::at_most(d, gated, limit);
    const auto u = math::at_least(d, math::at_most(d, linear, limit), -limit);
    const auto sigmoid =
        math::Sigmoid(d, hn::Mul(hn::Set(d, activation.alpha), g));
    return hn::Mul(hn::Add(u, hn::Set(d, 1.0f)), hn::Mul(g, sigmoid));
  });
}

void Activate(
    const Activation& activation,
    const float* gate,
    const float* up,
    float* out,
    int64_t count) {
  switch (activation.kind) {
    case Activation::Kind::Silu:
      return apply(Silu(), gate, up, out, count);
    case Activation::Kind::GeluTanh:
      return apply(GeluTanh(), gate, up, out, count);
    case Activation::Kind::Gelu:
      return apply(Gelu(), gate, up, out, count);
    case Activation::Kind::Relu2:
      return apply(Relu2(), gate, up, out, count);
    case Activation::Kind::ClampedSwiglu:
      return clamped_swiglu(activation, gate, up, out, count);
  }
}

} // namespace zmlx::moe::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::moe {
namespace {

using reference::number;

mx::array function_of(Activation::Kind kind, const mx::array& x) {
  switch (kind) {
    case Activation::Kind::GeluTanh:
      return reference::gelu_tanh(x);
    case Activation::Kind::Gelu:
      return number(0.5, x) * x *
          (number(1, x) + mx::erf(x * number(0.7071067811865475, x)));
    case Activation::Kind::Relu2:
      return mx::square(mx::maximum(x, number(0, x)));
    default:
      return reference::silu(x);
  }
}

} // namespace

HWY_EXPORT(Activate);

void activate(
    const Activation& activation,
    const float* gate,
    const float* up,
    float* out,
    int64_t count) {
  HWY_DYNAMIC_DISPATCH(Activate)(activation, gate, up, out, count);
}

mx::array composed_activation(
    const Activation& activation,
    const mx::array* gate,
    const mx::array& up) {
  if (!gate) {
    return function_of(activation.kind, up);
  }
  if (activation.kind != Activation::Kind::ClampedSwiglu) {
    return function_of(activation.kind, *gate) * up;
  }
  const mx::array limit = number(activation.limit, up);
  const mx::array g = mx::minimum(*gate, limit);
  const mx::array u = mx::clip(up, mx::negative(limit), limit);
  return (u + number(1, u)) * g *
      reference::sigmoid(number(activation.alpha, g) * g);
}

} // namespace zmlx::moe
#endif // HWY_ONCE
