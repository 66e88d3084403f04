// SPDX-License-Identifier: MIT
// Float32 functions computed in float64, 8 to 16 bits beyond what is kept, so
// that the result is off by little more than its rounding (docs/accuracy.md).
// Included once per instruction set; polynomials are minimax fits.
#include <array>
#include <cmath>
#include <cstdint>

#include "zmlx/runtime/simd_float-inl.h"

#if defined(ZMLX_RUNTIME_SIMD_DOUBLE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_RUNTIME_SIMD_DOUBLE_INL_H_
#undef ZMLX_RUNTIME_SIMD_DOUBLE_INL_H_
#else
#define ZMLX_RUNTIME_SIMD_DOUBLE_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace zmlx::simd::HWY_NAMESPACE {

inline constexpr double kHalfPi = 0x1.921fb54442d18p+0;
inline constexpr double kDoubleInfinity =
    std::numeric_limits<double>::infinity();

/// Float lanes to double and back; overflows to infinity.
template <class D, class V>
HWY_INLINE hn::Vec<hn::Rebind<float, D>> narrow(D dd, V x) {
  const hn::Rebind<float, D> d;
#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
  // DemoteTo gives the largest float there.
  HWY_ALIGN std::array<double, hn::MaxLanes(D())> from;
  HWY_ALIGN std::array<float, hn::MaxLanes(D())> to;
  hn::Store(x, dd, from.data());
  for (size_t i = 0; i < from.size(); ++i) {
    to[i] = static_cast<float>(from[i]);
  }
  return hn::Load(d, to.data());
#else
  (void)dd;
  return hn::DemoteTo(d, x);
#endif
}

/// f(dd, x...) on float vectors, by halves.
template <class D, class F, class... V>
HWY_INLINE hn::VFromD<D> in_double(D d, const F& f, V... x) {
#if HWY_TARGET == HWY_SCALAR
  (void)d;
  const hn::Rebind<double, D> dd;
  return narrow(dd, f(dd, hn::PromoteTo(dd, x)...));
#else
  const hn::Half<D> half;
  const hn::Rebind<double, hn::Half<D>> dd;
  const auto low =
      narrow(dd, f(dd, hn::PromoteTo(dd, hn::LowerHalf(half, x))...));
  const auto high =
      narrow(dd, f(dd, hn::PromoteTo(dd, hn::UpperHalf(half, x))...));
  return hn::Combine(d, high, low);
#endif
}

/// exp(x) to 2^-38; |x| <= 700 or NaN.
template <class D, class V>
HWY_INLINE V exp64(D dd, V x) {
  const hn::RebindToUnsigned<D> du;
  // Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits.
  const auto magic = hn::Set(dd, 0x1.8p52);
  const auto t = hn::MulAdd(x, hn::Set(dd, 0x1.71547652b82fep+0), magic);
  const auto n = hn::Sub(t, magic);
  const auto high = hn::NegMulAdd(n, hn::Set(dd, 0x1.62e42fefp-1), x);
  const auto r = hn::NegMulAdd(n, hn::Set(dd, 0x1.473de6af278edp-34), high);
  const auto p = polynomial(
      dd,
      r,
      0x1.000000005f5efp-1,
      0x1.5555557e493bdp-3,
      0x1.5555541abecf5p-5,
      0x1.1110a1885af16p-7,
      0x1.6c18d73eb62d8p-10,
      0x1.a186c0bd8322ap-13,
      0x1.9e87aa6c068b4p-16);
  const auto near_1 =
      hn::Add(hn::MulAdd(hn::Mul(r, r), p, r), hn::Set(dd, 1.0));
  const auto power = hn::Add(
      hn::ShiftLeft<52>(hn::BitCast(du, t)), hn::Set(du, 1023ull << 52));
  return hn::Mul(near_1, hn::BitCast(dd, power));
}

/// log(x) to 2^-44; x >= 0 and not subnormal, or NaN.
template <class D, class V>
HWY_INLINE V log64(D dd, V x) {
  const hn::RebindToUnsigned<D> du;
  constexpr uint64_t kRootHalf = 0x3fe6a09e667f3bcd;
  const auto bits =
      hn::Add(hn::BitCast(du, x), hn::Set(du, 0x3ff0000000000000 - kRootHalf));
  const auto field = hn::ShiftRight<52>(bits);
  const auto e = hn::Sub(
      hn::BitCast(dd, hn::Or(field, hn::Set(du, 0x4330000000000000))),
      hn::Set(dd, 0x1p52 + 1023));
  const auto m = hn::BitCast(
      dd,
      hn::Add(
          hn::And(bits, hn::Set(du, 0x000fffffffffffff)),
          hn::Set(du, kRootHalf)));
  const auto f = hn::Sub(m, hn::Set(dd, 1.0));
  const auto s = hn::Div(f, hn::Add(m, hn::Set(dd, 1.0)));
  const auto s2 = hn::Mul(s, s);
  const auto q = polynomial(
      dd,
      s2,
      0x1.555555561f005p-1,
      0x1.999996a6c746bp-2,
      0x1.2494132ddd825p-2,
      0x1.c62a9c279932dp-3,
      0x1.911d2d86b54e8p-3);
  const auto near_0 = hn::MulAdd(hn::Mul(s2, s), q, hn::Add(s, s));
  const auto y = hn::MulAdd(e, hn::Set(dd, 0x1.62e42fefa39efp-1), near_0);
  const auto above_0 =
      hn::IfThenElse(hn::Eq(x, hn::Zero(dd)), hn::Set(dd, -kDoubleInfinity), y);
  return hn::IfThenElse(
      hn::Lt(x, hn::Set(dd, kDoubleInfinity)), above_0, x); // inf and NaN
}

/// log(1 + x) to 2^-40; x >= 0.
template <class D, class V>
HWY_INLINE V log1p64(D dd, V x) {
  const auto near_0 =
      hn::Mul(x, polynomial(dd, x, 1.0, -0.5, 0x1.5555555555555p-2));
  return hn::IfThenElse(
      hn::Lt(x, hn::Set(dd, 0x1p-12)),
      near_0,
      log64(dd, hn::Add(x, hn::Set(dd, 1.0))));
}

template <class D, class V>
HWY_INLINE V Exp10(D d, V x) {
  const auto bounded = at_least(d, at_most(d, x, 40.0f), -50.0f);
  return in_double(
      d,
      [](auto dd, auto v) {
        return exp64(dd, hn::Mul(v, hn::Set(dd, 0x1.26bb1bbb55516p+1)));
      },
      bounded);
}

template <class D, class V>
HWY_INLINE V Sinh(D d, V x) {
  const auto bounded = at_least(d, at_most(d, x, 100.0f), -100.0f);
  return in_double(
      d,
      [](auto dd, auto v) {
        const auto e = exp64(dd, v);
        const auto half = hn::Set(dd, 0.5);
        const auto far =
            hn::Mul(hn::Sub(e, hn::Div(hn::Set(dd, 1.0), e)), half);
        const auto v2 = hn::Mul(v, v);
        const auto p = polynomial(
            dd,
            v2,
            0x1.5555551b3ad73p-3,
            0x1.111134fbab55ap-7,
            0x1.9ffe9260c3fc1p-13,
            0x1.7a15b658555b4p-19);
        const auto near_0 = hn::MulAdd(hn::Mul(v2, v), p, v);
        return hn::IfThenElse(
            hn::Lt(hn::Abs(v), hn::Set(dd, 1.0)), near_0, far);
      },
      bounded);
}

template <class D, class V>
HWY_INLINE V Cosh(D d, V x) {
  return in_double(
      d,
      [](auto dd, auto v) {
        const auto e = exp64(dd, v);
        return hn::Mul(
            hn::Add(e, hn::Div(hn::Set(dd, 1.0), e)), hn::Set(dd, 0.5));
      },
      at_most(d, hn::Abs(x), 100.0f));
}

template <class D, class V>
HWY_INLINE V Asinh(D d, V x) {
  const auto size = in_double(
      d,
      [](auto dd, auto v) {
        // sqrt(1 + v^2) - 1 = v^2 / (1 + sqrt(1 + v^2))
        const auto one = hn::Set(dd, 1.0);
        const auto v2 = hn::Mul(v, v);
        const auto root = hn::Sqrt(hn::Add(v2, one));
        const auto more = hn::Div(v2, hn::Add(root, one));
        return log1p64(dd, hn::Add(v, more));
      },
      hn::Abs(x));
  // The quotient is NaN at infinity.
  const auto finite = hn::Lt(hn::Abs(x), hn::Set(d, kInfinity));
  return hn::CopySign(hn::IfThenElse(finite, size, hn::Abs(x)), x);
}

template <class D, class V>
HWY_INLINE V Acosh(D d, V x) {
  return in_double(
      d,
      [](auto dd, auto v) {
        const auto t = hn::Sub(v, hn::Set(dd, 1.0));
        const auto root = hn::Sqrt(hn::Mul(t, hn::Add(v, hn::Set(dd, 1.0))));
        const auto y = log1p64(dd, hn::Add(t, root));
        return hn::IfThenElse(hn::Lt(t, hn::Zero(dd)), hn::NaN(dd), y);
      },
      x);
}

template <class D, class V>
HWY_INLINE V Atanh(D d, V x) {
  const auto size = in_double(
      d,
      [](auto dd, auto v) {
        const auto one = hn::Set(dd, 1.0);
        const auto t = hn::Div(hn::Add(v, v), hn::Sub(one, v)); // inf at 1
        const auto y = hn::Mul(log1p64(dd, t), hn::Set(dd, 0.5));
        return hn::IfThenElse(hn::Gt(v, one), hn::NaN(dd), y);
      },
      hn::Abs(x));
  return hn::CopySign(size, x);
}

template <class D, class V>
HWY_INLINE V Pow(D d, V x, V y) {
  return in_double(
      d,
      [](auto dd, auto a, auto b) {
        const auto one = hn::Set(dd, 1.0), zero = hn::Zero(dd);
        const auto size = hn::Abs(a);
        // |b log size| <= 1e41; beyond 200 the result is 0 or infinity. 0 *
        // infinity is NaN, which the last lines put right.
        auto power = hn::Mul(b, log64(dd, size));
        power = at_least(dd, at_most(dd, power, 200.0), -200.0);
        const auto half = hn::Mul(b, hn::Set(dd, 0.5));
        const auto odd =
            hn::And(hn::Eq(hn::Trunc(b), b), hn::Ne(hn::Trunc(half), half));
        // The sign of a where b is odd, -0 and -inf included.
        const auto signed_size = hn::IfThenElse(odd, hn::CopySign(one, a), one);
        auto result = hn::Mul(exp64(dd, power), signed_size);
        const auto no_power = hn::And(
            hn::Lt(a, zero),
            hn::And(
                hn::Gt(a, hn::Set(dd, -kDoubleInfinity)),
                hn::Ne(hn::Trunc(b), b)));
        result = hn::IfThenElse(no_power, hn::NaN(dd), result);
        const auto is_one = hn::Or(
            hn::Or(hn::Eq(a, one), hn::Eq(b, zero)),
            hn::And(
                hn::Eq(size, one),
                hn::Eq(hn::Abs(b), hn::Set(dd, kDoubleInfinity))));
        return hn::IfThenElse(is_one, one, result);
      },
      x,
      y);
}

/// C's fmod, exact.
template <class D, class V>
HWY_INLINE V Fmod(D d, V x, V y) {
  const auto result = in_double(
      d,
      [](auto dd, auto a, auto b) {
        // The quotient may be rounded up to a whole number, or down from one.
        const auto size = hn::Abs(b);
        const auto q = hn::Trunc(hn::Div(hn::Abs(a), size));
        auto r = hn::NegMulAdd(q, size, hn::Abs(a));
        const auto zero = hn::Zero(dd);
        r = hn::IfThenElse(hn::Lt(r, zero), hn::Add(r, size), r);
        r = hn::IfThenElse(hn::Ge(r, size), hn::Sub(r, size), r);
        r = hn::IfThenElse(
            hn::Eq(size, hn::Set(dd, kDoubleInfinity)), hn::Abs(a), r);
        r = hn::IfThenElse(
            hn::Or(
                hn::Eq(hn::Abs(a), hn::Set(dd, kDoubleInfinity)),
                hn::Or(hn::Eq(size, zero), hn::Not(hn::Eq(b, b)))),
            hn::NaN(dd),
            r);
        return hn::CopySign(r, a);
      },
      x,
      y);
  // Above, q * y is exact while q has no more than 29 bits.
  const auto far = hn::Gt(hn::Abs(x), hn::Mul(hn::Abs(y), hn::Set(d, 0x1p28f)));
  if (HWY_LIKELY(hn::AllFalse(d, far))) {
    return result;
  }
  constexpr size_t kLanes = hn::MaxLanes(D());
  HWY_ALIGN float a[kLanes], b[kLanes];
  hn::Store(x, d, a);
  hn::Store(y, d, b);
  for (size_t i = 0; i < hn::Lanes(d); ++i) {
    a[i] = std::fmod(a[i], b[i]);
  }
  return hn::IfThenElse(far, hn::Load(d, a), result);
}

/// erf(x) for |x| <= 1, to 2^-40.
template <class D, class V>
HWY_INLINE V erf_near_0(D dd, V x) {
  const auto x2 = hn::Mul(x, x);
  return hn::Mul(
      x,
      polynomial(
          dd,
          x2,
          0x1.20dd750428b20p+0,
          -0x1.812746adb2205p-2,
          0x1.ce2f2097547bep-4,
          -0x1.b82cb8f2972d9p-6,
          0x1.56586ce41cdf3p-8,
          -0x1.bfdf597d3465ap-11,
          0x1.f56beb98f5159p-14,
          -0x1.d25d116f9ee11p-17,
          0x1.1b8c7cfd1f423p-20));
}

/// erfc(x) for x from 0.9 to 10.6, to 2^-37; NaN where x is.
template <class D, class V>
HWY_INLINE V erfc_far(D dd, V x) {
  const auto three = hn::Set(dd, 3.0);
  const auto t = hn::Div(hn::Sub(x, three), hn::Add(x, three));
  const auto p = polynomial(
      dd,
      t,
      0x1.40c522d7e3805p+0,
      -0x1.15c084ba25f76p-3,
      -0x1.85a15c341ab45p-5,
      0x1.0983661f67302p-3,
      -0x1.e88b8346f6873p-4,
      0x1.17ca44046932bp-4,
      -0x1.8574075a17d10p-6,
      0x1.4b613cbbe0bd3p-9,
      0x1.eec9cd4e03855p-10,
      -0x1.95735af3e4926p-11,
      -0x1.a88f44eaf5cffp-14,
      0x1.c21cfa7d364dcp-14);
  const auto gauss = exp64(dd, hn::Neg(hn::Mul(x, x)));
  const auto under = hn::Add(hn::Add(x, x), hn::Set(dd, 1.0));
  return hn::Div(hn::Mul(gauss, p), under);
}

template <class D, class V>
HWY_INLINE V Erf(D d, V x) {
  return in_double(
      d,
      [](auto dd, auto v) {
        const auto one = hn::Set(dd, 1.0), size = hn::Abs(v);
        const auto inside =
            at_least(dd, at_most(dd, size, 6.0), 0.9); // erf(6) = 1 in float
        const auto far = hn::Sub(one, erfc_far(dd, inside));
        return hn::IfThenElse(
            hn::Lt(size, one), erf_near_0(dd, v), hn::CopySign(far, v));
      },
      x);
}

template <class D, class V>
HWY_INLINE V Erfc(D d, V x) {
  return in_double(
      d,
      [](auto dd, auto v) {
        const auto one = hn::Set(dd, 1.0), size = hn::Abs(v);
        const auto inside =
            at_least(dd, at_most(dd, size, 10.6), 0.9); // 0 from 10.1 on
        const auto far = erfc_far(dd, inside);
        const auto either = hn::IfThenElse(
            hn::Lt(v, hn::Zero(dd)), hn::Sub(hn::Set(dd, 2.0), far), far);
        return hn::IfThenElse(
            hn::Lt(size, one), hn::Sub(one, erf_near_0(dd, v)), either);
      },
      x);
}

} // namespace zmlx::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // per target
