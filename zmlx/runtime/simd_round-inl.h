// SPDX-License-Identifier: MIT
// Rounding of float lanes to shorter types, and minimum and maximum that pass
// over NaN. Included once per instruction set.
#include "zmlx/runtime/simd_float-inl.h"

#if defined(ZMLX_RUNTIME_SIMD_ROUND_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_RUNTIME_SIMD_ROUND_INL_H_
#undef ZMLX_RUNTIME_SIMD_ROUND_INL_H_
#else
#define ZMLX_RUNTIME_SIMD_ROUND_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace zmlx::simd::HWY_NAMESPACE {

/// The lesser and the greater; the other one when one is NaN.
template <class D, class V>
HWY_INLINE V min_number(D, V x, V y) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3
  return hn::IfThenElse(hn::IsNaN(y), x, hn::Min(x, y)); // y when x is NaN
#else
  return hn::IfThenElse(hn::IsNaN(x), y, hn::IfThenElse(hn::Lt(y, x), y, x));
#endif
}
template <class D, class V>
HWY_INLINE V max_number(D, V x, V y) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3
  return hn::IfThenElse(hn::IsNaN(y), x, hn::Max(x, y));
#else
  return hn::IfThenElse(hn::IsNaN(x), y, hn::IfThenElse(hn::Gt(y, x), y, x));
#endif
}

/// The nearest float whose last kBits mantissa bits are 0, ties to even.
template <int kBits, class D, class V>
HWY_INLINE V shorten(D d, V x) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<kBits>(bits), hn::Set(du, 1));
  const auto rounded =
      hn::Add(bits, hn::Add(odd, hn::Set(du, (1u << (kBits - 1)) - 1)));
  return hn::BitCast(d, hn::And(rounded, hn::Set(du, ~((1u << kBits) - 1))));
}

/// The nearest bfloat16 value.
template <class D, class V>
HWY_INLINE V round_bfloat(D d, V x) {
  return hn::IfThenElse(hn::IsNaN(x), x, shorten<16>(d, x));
}

/// The nearest float16 value, infinity beyond 65504.
template <class D, class V>
HWY_INLINE V round_half(D d, V x) {
  const auto size = hn::Abs(x);
  // Below 2^-14 a half is a multiple of 2^-24, as floats near 0.75 are.
  const auto magic = hn::Set(d, 0.75f);
  const auto small = hn::Sub(hn::Add(size, magic), magic);
  auto y = hn::IfThenElse(
      hn::Lt(size, hn::Set(d, 0x1p-14f)), small, shorten<13>(d, size));
  y = hn::IfThenElse(hn::Gt(y, hn::Set(d, 65504.0f)), hn::Set(d, kInfinity), y);
  return hn::IfThenElse(hn::IsNaN(x), x, hn::CopySign(y, x));
}

} // namespace zmlx::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // per target
