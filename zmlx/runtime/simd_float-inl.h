// SPDX-License-Identifier: MIT
// Float32 functions computed in float32: the exponential and logarithmic family
// to 2 ulp (docs/accuracy.md). Included once per instruction set. Polynomials
// are minimax fits of the relative error. Needs -ffp-contract=off.
#include <limits>

#include "hwy/highway.h"

#if defined(ZMLX_RUNTIME_SIMD_FLOAT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_RUNTIME_SIMD_FLOAT_INL_H_
#undef ZMLX_RUNTIME_SIMD_FLOAT_INL_H_
#else
#define ZMLX_RUNTIME_SIMD_FLOAT_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace zmlx::simd::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// c0 + c1 x + c2 x^2 + ...
template <class D, class V>
HWY_INLINE V polynomial(D d, V, hn::TFromD<D> c) {
  return hn::Set(d, c);
}
template <class D, class V, class... C>
HWY_INLINE V polynomial(D d, V x, hn::TFromD<D> c, C... rest) {
  return hn::MulAdd(polynomial(d, x, rest...), x, hn::Set(d, c));
}

/// min(x, c) and max(x, c), with NaN where x is NaN.
template <class D, class V>
HWY_INLINE V at_most(D d, V x, hn::TFromD<D> c) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3
  return hn::Min(hn::Set(d, c), x); // minps gives the second operand on NaN
#else
  return hn::IfThenElse(hn::Gt(x, hn::Set(d, c)), hn::Set(d, c), x);
#endif
}
template <class D, class V>
HWY_INLINE V at_least(D d, V x, hn::TFromD<D> c) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3
  return hn::Max(hn::Set(d, c), x);
#else
  return hn::IfThenElse(hn::Lt(x, hn::Set(d, c)), hn::Set(d, c), x);
#endif
}

/// 2^n for whole n from -126 to 127; 0 below, down to -254.
template <class D, class VI>
HWY_INLINE hn::VFromD<D> power_of_two(D d, VI n) {
  const hn::RebindToSigned<D> di;
  const auto field = hn::Max(hn::Add(n, hn::Set(di, 127)), hn::Zero(di));
  return hn::BitCast(d, hn::ShiftLeft<23>(field));
}

/// y * 2^n for whole n from -252 to 254, rounded once if it is subnormal.
template <class D, class V>
HWY_INLINE V scale(D d, V y, V n) {
#if HWY_TARGET <= HWY_AVX3
  if constexpr (sizeof(V) == 64) {
    (void)d;
    return V{_mm512_scalef_ps(y.raw, n.raw)};
  } else
#endif
  {
    // In two factors, neither of them subnormal.
    const hn::RebindToSigned<D> di;
    const auto whole = hn::ConvertTo(di, n);
    const auto half = hn::ShiftRight<1>(whole);
    const auto rest = hn::Sub(whole, half);
    return hn::Mul(hn::Mul(y, power_of_two(d, half)), power_of_two(d, rest));
  }
}

/// x = n ln 2 + r with |r| <= ln 2 / 2 (and a little); |x| < 120.
template <class V>
struct Reduced {
  V n, r;
};
template <class D, class V>
HWY_INLINE Reduced<V> reduce_ln2(D d, V x) {
  const auto n = hn::Round(hn::Mul(x, hn::Set(d, 0x1.715476p0f)));
  // n * 355/512 is exact.
  const auto high = hn::NegMulAdd(n, hn::Set(d, 0x1.63p-1f), x);
  return {n, hn::NegMulAdd(n, hn::Set(d, -0x1.bd0106p-13f), high)};
}

/// exp(r) - 1 for |r| <= ln 2 / 2.
template <class D, class V>
HWY_INLINE V expm1_near_0(D d, V r) {
  const auto p = polynomial(
      d,
      r,
      0x1.fffffep-2f,
      0x1.5554aep-3f,
      0x1.555676p-5f,
      0x1.122886p-7f,
      0x1.6bebdep-10f);
  return hn::MulAdd(hn::Mul(r, r), p, r);
}

template <class D, class V>
HWY_INLINE V Exp(D d, V x) {
  // exp(-104) rounds to 0, exp(89) to infinity.
  const auto [n, r] = reduce_ln2(d, at_least(d, at_most(d, x, 89.0f), -104.0f));
  const auto p = polynomial(
      d,
      r,
      0x1.fffffcp-2f,
      0x1.555490p-3f,
      0x1.5558f8p-5f,
      0x1.123b02p-7f,
      0x1.6a2256p-10f);
  const auto near_1 =
      hn::Add(hn::MulAdd(hn::Mul(r, r), p, r), hn::Set(d, 1.0f));
  return scale(d, near_1, n);
}

template <class D, class V>
HWY_INLINE V Exp2(D d, V x) {
  x = at_least(d, at_most(d, x, 129.0f), -151.0f);
  const auto n = hn::Round(x);
  const auto r = hn::Sub(x, n);
  const auto p = polynomial(
      d,
      r,
      0x1.62e430p-1f,
      0x1.ebfbe2p-3f,
      0x1.c6ae6ep-5f,
      0x1.3b2706p-7f,
      0x1.5f7486p-10f,
      0x1.470fb6p-13f);
  return scale(d, hn::MulAdd(r, p, hn::Set(d, 1.0f)), n);
}

/// expm1 of x from -30 to 89, but +0 for -0.
template <class D, class V>
HWY_INLINE V expm1_in_range(D d, V x) {
  const auto [n, r] = reduce_ln2(d, x);
  const auto q = expm1_near_0(d, r);
  // (q + (1 - 2^-n)) 2^n
  const hn::RebindToSigned<D> di;
  const auto inverse = power_of_two(d, hn::Neg(hn::ConvertTo(di, n)));
  const auto offset = hn::Sub(hn::Set(d, 1.0f), inverse);
  return scale(d, hn::Add(q, offset), n);
}

template <class D, class V>
HWY_INLINE V Expm1(D d, V x) {
  // exp(x) - 1 is -1 below -18.
  const auto y = expm1_in_range(d, at_least(d, at_most(d, x, 89.0f), -30.0f));
  return hn::CopySign(y, x);
}

template <class D, class V>
HWY_INLINE V Tanh(D d, V x) {
  const auto size = hn::Abs(x);
  const auto x2 = hn::Mul(x, x);
  const auto p = polynomial(
      d,
      x2,
      -0x1.55551cp-2f,
      0x1.110270p-3f,
      -0x1.b79fc8p-5f,
      0x1.4e3356p-6f,
      -0x1.647afep-8f);
  const auto near_0 = hn::MulAdd(hn::Mul(x2, x), p, x);
  // 1 - 2 / (1 + exp(2 |x|)), where exp(2 |x|) = 2^n (1 + z); 1 from 10 on.
  const auto twice = at_most(d, hn::Add(size, size), 20.0f);
  const auto [n, r] = reduce_ln2(d, twice);
  const auto z = expm1_near_0(d, r);
  const hn::RebindToSigned<D> di;
  const auto power = power_of_two(d, hn::Neg(hn::ConvertTo(di, n)));
  const auto one = hn::Set(d, 1.0f);
  const auto under = hn::Add(hn::Add(one, power), z);
  const auto far = hn::Sub(one, hn::Div(hn::Add(power, power), under));
  return hn::CopySign(
      hn::IfThenElse(hn::Lt(size, hn::Set(d, 0.625f)), near_0, far), x);
}

template <class D, class V>
HWY_INLINE V Sigmoid(D d, V x) {
  // exp(-x) = 2^n (1 + z). From -104 on down it is 0, from 20 on up 1.
  const auto bounded = at_least(d, at_most(d, x, 30.0f), -104.0f);
  const auto [n, r] = reduce_ln2(d, hn::Neg(bounded));
  const auto z = expm1_near_0(d, r);
  const hn::RebindToSigned<D> di;
  const auto power =
      power_of_two(d, hn::Neg(hn::ConvertTo(di, hn::Abs(n)))); // 2^-|n|
  const auto one = hn::Set(d, 1.0f), zero = hn::Zero(d);
  const auto large = hn::Gt(n, zero);
  // (1 + 2^n (1 + z)), divided by 2^n where that is large
  const auto rest = hn::IfThenElse(large, z, hn::Mul(power, z));
  const auto under = hn::Add(one, hn::Add(power, rest));
  return scale(d, hn::Div(one, under), hn::IfThenElse(large, hn::Neg(n), zero));
}

/// x = 2^e (1 + f) with 1 + f from sqrt(1/2) to sqrt(2); x normal and positive.
template <class V>
struct Parts {
  V e, f;
};
template <class D, class V>
HWY_INLINE Parts<V> split(D d, V x) {
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(di, x);
  const auto e = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3f3504f3)));
  const auto m = hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(e)));
  return {hn::ConvertTo(d, e), hn::Sub(m, hn::Set(d, 1.0f))};
}

/// log(1 + f) - f for 1 + f from sqrt(1/2) to sqrt(2).
template <class D, class V>
HWY_INLINE V log1p_rest(D d, V f) {
  const auto p = polynomial(
      d,
      f,
      0x1.555556p-2f,
      -0x1.00022ap-2f,
      0x1.999ff2p-3f,
      -0x1.547176p-3f,
      0x1.22db86p-3f,
      -0x1.0d8f52p-3f,
      0x1.0555c4p-3f,
      -0x1.386de4p-4f);
  const auto square = hn::Mul(f, f);
  return hn::MulAdd(hn::Mul(square, f), p, hn::Mul(square, hn::Set(d, -0.5f)));
}

/// Where a logarithm needs no care: normal, positive, finite.
template <class D, class V>
HWY_INLINE bool all_normal(D d, V x) {
  return HWY_LIKELY(
      hn::AllTrue(
          d,
          hn::And(
              hn::Ge(x, hn::Set(d, std::numeric_limits<float>::min())),
              hn::Lt(x, hn::Set(d, kInfinity)))));
}

/// Puts the values of a logarithm at and below 0, at infinity and NaN.
template <class D, class V>
HWY_INLINE V log_edges(D d, V x, V y) {
  const auto zero = hn::Zero(d);
  const auto edge = hn::IfThenElse(
      hn::Eq(x, zero),
      hn::Set(d, -kInfinity),
      hn::IfThenElse(hn::Eq(x, hn::Set(d, kInfinity)), x, hn::NaN(d)));
  const auto inside =
      hn::And(hn::Gt(x, zero), hn::Lt(x, hn::Set(d, kInfinity)));
  return hn::IfThenElse(inside, y, edge);
}

/// finish(e, f) over the parts of x, of any sign and size.
template <class D, class V, class Finish>
HWY_INLINE V logarithm(D d, V x, const Finish& finish) {
  if (all_normal(d, x)) {
    const auto parts = split(d, x);
    return finish(parts.e, parts.f);
  }
  const auto tiny = hn::Lt(x, hn::Set(d, std::numeric_limits<float>::min()));
  const auto normal = hn::IfThenElse(tiny, hn::Mul(x, hn::Set(d, 0x1p24f)), x);
  const auto parts = split(d, normal);
  const auto shift = hn::IfThenElseZero(tiny, hn::Set(d, 24.0f));
  return log_edges(d, x, finish(hn::Sub(parts.e, shift), parts.f));
}

/// e ln 2 + log(1 + f)
template <class D, class V>
HWY_INLINE V log_of_parts(D d, V e, V f) {
  const auto rest =
      hn::MulAdd(e, hn::Set(d, -0x1.bd0106p-13f), log1p_rest(d, f));
  return hn::MulAdd(e, hn::Set(d, 0x1.63p-1f), hn::Add(f, rest));
}

template <class D, class V>
HWY_INLINE V Log(D d, V x) {
  return logarithm(d, x, [&](V e, V f) { return log_of_parts(d, e, f); });
}

/// e + (f + rest) * (high + low), where high has 12 bits: f, whose product
/// counts most, is split so that it is exact with or without FMA.
template <class D, class V>
HWY_INLINE V scaled_log(D d, V e, V f, V rest, float high, float low) {
  const hn::RebindToUnsigned<D> du;
  const auto top = hn::And(f, hn::BitCast(d, hn::Set(du, 0xfffff000)));
  const auto bottom = hn::Add(hn::Sub(f, top), rest);
  const auto small =
      hn::MulAdd(bottom, hn::Set(d, high + low), hn::Mul(top, hn::Set(d, low)));
  return hn::Add(e, hn::MulAdd(top, hn::Set(d, high), small));
}

template <class D, class V>
HWY_INLINE V Log2(D d, V x) {
  return logarithm(d, x, [&](V e, V f) {
    return scaled_log(d, e, f, log1p_rest(d, f), 0x1.718p0f, -0x1.5c4d6ap-11f);
  });
}

template <class D, class V>
HWY_INLINE V Log10(D d, V x) {
  return logarithm(d, x, [&](V e, V f) {
    // log10(2) as 12 bits, times which e is exact, and the rest.
    const auto near_0 = scaled_log(
        d,
        hn::Mul(e, hn::Set(d, 0x1.3509f8p-18f)),
        f,
        log1p_rest(d, f),
        0x1.bccp-2f,
        -0x1.09d5b2p-15f);
    return hn::MulAdd(e, hn::Set(d, 0x1.344p-2f), near_0);
  });
}

template <class D, class V>
HWY_INLINE V Log1p(D d, V x) {
  const auto one = hn::Set(d, 1.0f);
  const auto u = hn::Add(x, one);
  const auto inside =
      hn::And(hn::Gt(x, hn::Set(d, -1.0f)), hn::Lt(x, hn::Set(d, 0x1p100f)));
  // (1 + x) 2^-e = 1 + f, without rounding 1 + x.
  const hn::RebindToSigned<D> di;
  const auto e =
      hn::ShiftRight<23>(hn::Sub(hn::BitCast(di, u), hn::Set(di, 0x3f3504f3)));
  const auto s = power_of_two(d, hn::Neg(e));
  const auto f = hn::MulAdd(x, s, hn::Sub(s, one));
  const auto y = hn::CopySign(log_of_parts(d, hn::ConvertTo(d, e), f), x);
  if (HWY_LIKELY(hn::AllTrue(d, inside))) {
    return y;
  }
  // 1 + x is exact at -1 and below, and is x from 2^100 on.
  return hn::IfThenElse(inside, y, Log(d, u));
}

template <class D, class V>
HWY_INLINE V Rsqrt(D d, V x) {
  return hn::Div(hn::Set(d, 1.0f), hn::Sqrt(x));
}

} // namespace zmlx::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // per target
