// SPDX-License-Identifier: MIT
// Trigonometric functions of float32 lanes, computed in float64: sin, cos and
// tan over the whole range, of multiples of pi, and the inverses. Included once
// per instruction set.
#include <bit>

#include "zmlx/runtime/simd_double-inl.h"

#if defined(ZMLX_RUNTIME_SIMD_TRIG_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_RUNTIME_SIMD_TRIG_INL_H_
#undef ZMLX_RUNTIME_SIMD_TRIG_INL_H_
#else
#define ZMLX_RUNTIME_SIMD_TRIG_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace zmlx::simd::HWY_NAMESPACE {

/// x = quarter * pi/2 + r, |r| <= pi/4; the low two bits of quarter count.
struct LargeAngle {
  double r;
  uint64_t quarter;
};

/// Payne-Hanek reduction of a finite float with |x| >= 2^20.
inline LargeAngle reduce_large_angle(float x) {
  // 32 zero bits, then 2 / pi.
  static constexpr uint32_t kTwoOverPi[] = {
      0x00000000u,
      0xa2f9836eu,
      0x4e441529u,
      0xfc2757d1u,
      0xf534ddc0u,
      0xdb629599u,
      0x3c439041u,
      0xfe5163abu,
      0xdebbc561u,
      0xb7246e3au};
  const auto bits = std::bit_cast<uint32_t>(x);
  // x = mantissa * 2^exponent
  const uint64_t mantissa = (bits & 0x7fffff) | 0x800000;
  const int exponent = static_cast<int>(bits >> 23 & 255) - 150;
  // Bits of 2 / pi that make multiples of 4 are left out; 96 are used.
  const int first = exponent - 2 + 32;
  const uint32_t* word = kTwoOverPi + first / 32;
  const auto take = [&](int i) -> uint64_t {
    const uint64_t pair = uint64_t{word[i]} << 32 | word[i + 1];
    return pair << (first % 32) >> 32;
  };
  // x * 2 / pi modulo 4, in units of 2^-62
  const uint64_t product = (mantissa * take(0) << 32) + mantissa * take(1) +
      (mantissa * take(2) >> 32);
  const uint64_t quarter = (product + (uint64_t{1} << 61)) >> 62;
  const auto rest = static_cast<int64_t>(product - (quarter << 62));
  const double r = static_cast<double>(rest) * (kHalfPi * 0x1p-62);
  return x < 0 ? LargeAngle{-r, 0 - quarter} : LargeAngle{r, quarter};
}

/// Lanes of an angle: r, and the quarter in the low bits of `quarter`.
template <class D>
struct Angle {
  hn::VFromD<D> r;
  hn::VFromD<hn::RebindToUnsigned<D>> quarter;
};

template <class D, class V>
HWY_NOINLINE Angle<D> replace_large(D dd, V x, Angle<D> angle) {
  const hn::RebindToUnsigned<D> du;
  constexpr size_t kLanes = hn::MaxLanes(D());
  HWY_ALIGN double in[kLanes], r[kLanes];
  HWY_ALIGN uint64_t quarter[kLanes];
  hn::Store(x, dd, in);
  hn::Store(angle.r, dd, r);
  hn::Store(angle.quarter, du, quarter);
  for (size_t i = 0; i < hn::Lanes(dd); ++i) {
    if (std::abs(in[i]) >= 0x1p20 && std::isfinite(in[i])) {
      const auto large = reduce_large_angle(static_cast<float>(in[i]));
      r[i] = large.r;
      quarter[i] = large.quarter;
    }
  }
  return {hn::Load(dd, r), hn::Load(du, quarter)};
}

/// r is NaN where x is not finite.
template <class D, class V>
HWY_INLINE Angle<D> reduce_angle(D dd, V x) {
  const hn::RebindToUnsigned<D> du;
  const auto magic = hn::Set(dd, 0x1.8p52);
  const auto t = hn::MulAdd(x, hn::Set(dd, 0x1.45f306dc9c883p-1), magic);
  const auto n = hn::Sub(t, magic);
  // pi/2 in three parts: n times one of the first two is exact.
  auto r = hn::NegMulAdd(n, hn::Set(dd, 0x1.921fb54400000p+0), x);
  r = hn::NegMulAdd(n, hn::Set(dd, 0x1.0b4611a600000p-34), r);
  r = hn::NegMulAdd(n, hn::Set(dd, 0x1.3198a2e037073p-69), r);
  const Angle<D> angle{r, hn::BitCast(du, t)};
  const auto small = hn::Lt(hn::Abs(x), hn::Set(dd, 0x1p20));
  if (HWY_LIKELY(hn::AllTrue(dd, small))) {
    return angle;
  }
  const auto finite = hn::Lt(hn::Abs(x), hn::Set(dd, kDoubleInfinity));
  auto whole = replace_large(dd, x, angle);
  whole.r = hn::IfThenElse(finite, whole.r, hn::NaN(dd));
  return whole;
}

/// sin(r) and cos(r) for |r| <= pi/4, to 2^-37.
template <class V>
struct SinCos {
  V sin, cos;
};
template <class D, class V>
HWY_INLINE SinCos<V> sin_cos_near_0(D dd, V r) {
  const auto r2 = hn::Mul(r, r);
  const auto s = polynomial(
      dd,
      r2,
      1.0,
      -0x1.5555554c68bc0p-3,
      0x1.11110863b688ap-7,
      -0x1.a00f79c189c8ep-13,
      0x1.6cd0a72908cd5p-19);
  const auto c = polynomial(
      dd,
      r2,
      1.0,
      -0.5,
      0x1.5555554ed2c23p-5,
      -0x1.6c16b822dd3aep-10,
      0x1.a010da146ae32p-16,
      -0x1.241da2bcfcf38p-22);
  return {hn::Mul(r, s), c}; // -0 stays
}

/// sin(quarter * pi/2 + r); `turn` more quarters make it the cosine.
template <class D>
HWY_INLINE hn::VFromD<D> sin_of(D dd, Angle<D> angle, uint64_t turn) {
  const hn::RebindToUnsigned<D> du;
  const auto [s, c] = sin_cos_near_0(dd, angle.r);
  const auto quarter = hn::Add(angle.quarter, hn::Set(du, turn));
  const auto odd = hn::MaskFromVec(
      hn::BitCast(dd, hn::Sub(hn::Zero(du), hn::And(quarter, hn::Set(du, 1)))));
  const auto sign = hn::ShiftLeft<62>(hn::And(quarter, hn::Set(du, 2)));
  return hn::Xor(hn::IfThenElse(odd, c, s), hn::BitCast(dd, sign));
}

template <class D>
HWY_INLINE hn::VFromD<D> tan_of(D dd, Angle<D> angle) {
  return hn::Div(sin_of(dd, angle, 0), sin_of(dd, angle, 1));
}

template <class D, class V>
HWY_INLINE V Sin(D d, V x) {
  return in_double(
      d, [](auto dd, auto v) { return sin_of(dd, reduce_angle(dd, v), 0); }, x);
}
template <class D, class V>
HWY_INLINE V Cos(D d, V x) {
  return in_double(
      d, [](auto dd, auto v) { return sin_of(dd, reduce_angle(dd, v), 1); }, x);
}
template <class D, class V>
HWY_INLINE V Tan(D d, V x) {
  return in_double(
      d, [](auto dd, auto v) { return tan_of(dd, reduce_angle(dd, v)); }, x);
}

/// The angle pi x; NaN at infinity.
template <class D, class V>
HWY_INLINE Angle<D> angle_of_pi(D dd, V x) {
  const hn::RebindToUnsigned<D> du;
  // From 2^25 on a float is an even integer.
  const auto large = hn::Ge(hn::Abs(x), hn::Set(dd, 0x1p25));
  x = hn::IfThenElse(large, hn::Mul(x, hn::Zero(dd)), x);
  const auto magic = hn::Set(dd, 0x1.8p52);
  const auto t = hn::MulAdd(x, hn::Set(dd, 2.0), magic);
  const auto n = hn::Sub(t, magic);
  const auto r = hn::NegMulAdd(n, hn::Set(dd, 0.5), x);
  return {hn::Mul(r, hn::Set(dd, 2 * kHalfPi)), hn::BitCast(du, t)};
}

/// sin(pi x), a zero having the sign of x; cos(pi x), its zeros being +0.
template <class D, class V>
HWY_INLINE V sin_pi(D dd, Angle<D> angle, V x) {
  const auto y = sin_of(dd, angle, 0);
  const auto zero = hn::Zero(dd);
  return hn::IfThenElse(hn::Eq(y, zero), hn::CopySign(zero, x), y);
}
template <class D>
HWY_INLINE hn::VFromD<D> cos_pi(D dd, Angle<D> angle) {
  return hn::Add(sin_of(dd, angle, 1), hn::Zero(dd)); // -0 + 0 = 0
}

template <class D, class V>
HWY_INLINE V SinPi(D d, V x) {
  return in_double(
      d, [](auto dd, auto v) { return sin_pi(dd, angle_of_pi(dd, v), v); }, x);
}
template <class D, class V>
HWY_INLINE V CosPi(D d, V x) {
  return in_double(
      d, [](auto dd, auto v) { return cos_pi(dd, angle_of_pi(dd, v)); }, x);
}
template <class D, class V>
HWY_INLINE V TanPi(D d, V x) {
  return in_double(
      d,
      [](auto dd, auto v) {
        const auto angle = angle_of_pi(dd, v);
        return hn::Div(sin_pi(dd, angle, v), cos_pi(dd, angle));
      },
      x);
}

/// atan(x) for 0 <= x <= 1, to 2^-36.
template <class D, class V>
HWY_INLINE V atan_to_1(D dd, V x) {
  const auto x2 = hn::Mul(x, x);
  const auto p = polynomial(
      dd,
      x2,
      -0x1.5555552f2820bp-2,
      0x1.9999846c6a977p-3,
      -0x1.2490392431334p-3,
      0x1.c6e85af921a5ap-4,
      -0x1.72d6311066a88p-4,
      0x1.33a16f6e9fad0p-4,
      -0x1.f02fa7daff56ap-5,
      0x1.69ea68f86a360p-5,
      -0x1.b2f5affc26458p-6,
      0x1.81f6b60b60fdbp-7,
      -0x1.b402d25a6dc81p-9,
      0x1.ce1a392ec680ap-12);
  return hn::MulAdd(hn::Mul(x2, x), p, x);
}

template <class D, class V>
HWY_INLINE V Atan(D d, V x) {
  return in_double(
      d,
      [](auto dd, auto v) {
        const auto one = hn::Set(dd, 1.0), size = hn::Abs(v);
        const auto far = hn::Gt(size, one);
        const auto t = hn::Div(
            hn::IfThenElse(far, one, size), hn::IfThenElse(far, size, one));
        const auto a = atan_to_1(dd, t);
        const auto y = hn::IfThenElse(far, hn::Sub(hn::Set(dd, kHalfPi), a), a);
        return hn::CopySign(y, v);
      },
      x);
}

template <class D, class V>
HWY_INLINE V Atan2(D d, V y, V x) {
  return in_double(
      d,
      [](auto dd, auto b, auto a) {
        const auto bs = hn::Abs(b), as = hn::Abs(a);
        const auto steep = hn::Gt(bs, as);
        const auto less = hn::IfThenElse(steep, as, bs);
        const auto most = hn::IfThenElse(steep, bs, as);
        // 0 / 0 is 0 here, and infinity / infinity 1.
        auto t = hn::Div(less, most);
        t = hn::IfThenZeroElse(hn::Eq(most, hn::Zero(dd)), t);
        t = hn::IfThenElse(
            hn::Eq(less, hn::Set(dd, kDoubleInfinity)), hn::Set(dd, 1.0), t);
        auto angle = atan_to_1(dd, t);
        angle =
            hn::IfThenElse(steep, hn::Sub(hn::Set(dd, kHalfPi), angle), angle);
        const auto left =
            hn::Lt(hn::CopySign(hn::Set(dd, 1.0), a), hn::Zero(dd));
        angle = hn::IfThenElse(
            left, hn::Sub(hn::Set(dd, 2 * kHalfPi), angle), angle);
        const auto ordered = hn::And(hn::Eq(a, a), hn::Eq(b, b));
        return hn::IfThenElse(ordered, hn::CopySign(angle, b), hn::NaN(dd));
      },
      y,
      x);
}

/// asin(x) for |x| <= 1/2, given x^2, to 2^-39.
template <class D, class V>
HWY_INLINE V asin_to_half(D dd, V x, V x2) {
  const auto p = polynomial(
      dd,
      x2,
      0x1.55555547de82ep-3,
      0x1.333340874a5e8p-4,
      0x1.6db25ce954678p-5,
      0x1.f2819e6394bd8p-6,
      0x1.6643e02b64ea8p-6,
      0x1.522e9003e3c5dp-6,
      0x1.05471599125bep-9,
      0x1.0d7cd91948621p-5);
  return hn::MulAdd(hn::Mul(x2, x), p, x);
}

/// asin(|x|) up to 1/2, else asin(sqrt((1 - |x|) / 2)) = acos(|x|) / 2.
template <class D, class V>
HWY_INLINE V half_angle(D dd, V size, hn::Mask<D> far) {
  const auto z = hn::Mul(hn::Sub(hn::Set(dd, 1.0), size), hn::Set(dd, 0.5));
  const auto s = hn::IfThenElse(far, hn::Sqrt(z), size);
  return asin_to_half(dd, s, hn::IfThenElse(far, z, hn::Mul(size, size)));
}

template <class D, class V>
HWY_INLINE V Asin(D d, V x) {
  return in_double(
      d,
      [](auto dd, auto v) {
        const auto size = hn::Abs(v);
        const auto far = hn::Gt(size, hn::Set(dd, 0.5));
        const auto a = half_angle(dd, size, far);
        const auto y = hn::IfThenElse(
            far, hn::Sub(hn::Set(dd, kHalfPi), hn::Add(a, a)), a);
        return hn::CopySign(y, v);
      },
      x);
}

template <class D, class V>
HWY_INLINE V Acos(D d, V x) {
  return in_double(
      d,
      [](auto dd, auto v) {
        const auto size = hn::Abs(v);
        const auto far = hn::Gt(size, hn::Set(dd, 0.5));
        const auto a = half_angle(dd, size, far);
        const auto twice = hn::Add(a, a);
        const auto mirrored = hn::IfThenElse(
            hn::Lt(v, hn::Zero(dd)),
            hn::Sub(hn::Set(dd, 2 * kHalfPi), twice),
            twice);
        return hn::IfThenElse(
            far, mirrored, hn::Sub(hn::Set(dd, kHalfPi), hn::CopySign(a, v)));
      },
      x);
}

} // namespace zmlx::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // per target
