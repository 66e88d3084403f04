// SPDX-License-Identifier: MIT
#include "zmlx/runtime/lane_kernels.h"

#include <algorithm>

#include "zmlx/runtime/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/runtime/lane_kernels.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/runtime/expression_steps-inl.h"
#include "zmlx/runtime/simd_round-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

using dialect::Combine;
using D16 = hn::Rebind<uint16_t, D>;
using DU = hn::RebindToUnsigned<D>;

// convert(lanes of FROM) -> lanes of TO over `count` values; the last vector
// goes through a buffer.
template <class From, class To, class F>
HWY_INLINE void
convert(const From* from, int64_t count, To* to, const F& convert_vector) {
  int64_t i = 0;
  for (; i + kVector <= count; i += kVector) {
    convert_vector(from + i, to + i);
  }
  if (i < count) {
    From in[kVector] = {};
    To out[kVector];
    std::copy(from + i, from + count, in);
    convert_vector(in, out);
    std::copy(out, out + (count - i), to + i);
  }
}

void FromBfloat(const uint16_t* from, int64_t count, float* to) {
  convert(from, count, to, [](const uint16_t* in, float* out) HWY_ATTR {
    const auto bits = hn::PromoteTo(DU(), hn::LoadU(D16(), in));
    hn::StoreU(hn::BitCast(D(), hn::ShiftLeft<16>(bits)), D(), out);
  });
}

void ToBfloat(const float* from, int64_t count, uint16_t* to) {
  convert(from, count, to, [](const float* in, uint16_t* out) HWY_ATTR {
    const auto x = math::round_bfloat(D(), hn::LoadU(D(), in));
    // NaN keeps its quiet bit, the highest of the mantissa.
    const auto quiet = hn::IfThenElse(
        hn::IsNaN(x), hn::Or(x, hn::BitCast(D(), hn::Set(DU(), 1u << 22))), x);
    const auto high = hn::ShiftRight<16>(hn::BitCast(DU(), quiet));
    hn::StoreU(hn::TruncateTo(D16(), high), D16(), out);
  });
}

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2

using D16F = hn::Rebind<hwy::float16_t, D>;

void FromHalf(const uint16_t* from, int64_t count, float* to) {
  convert(from, count, to, [](const uint16_t* in, float* out) HWY_ATTR {
    const auto half = hn::BitCast(D16F(), hn::LoadU(D16(), in));
    hn::StoreU(hn::PromoteTo(D(), half), D(), out);
  });
}

void ToHalf(const float* from, int64_t count, uint16_t* to) {
  convert(from, count, to, [](const float* in, uint16_t* out) HWY_ATTR {
    const auto half = hn::DemoteTo(D16F(), hn::LoadU(D(), in));
    hn::StoreU(hn::BitCast(D16(), half), D16(), out);
  });
}

#else // In integers: exact, whatever Highway's own does there.

HWY_INLINE V half_to_float(hn::Vec<DU> bits) {
  const DU du;
  const D d;
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000)));
  const auto size = hn::And(bits, hn::Set(du, 0x7fff));
  // The exponent moves by 112; times 2^112 does so for subnormals too.
  const auto scaled =
      hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(size)), hn::Set(d, 0x1p112f));
  const auto special =
      hn::BitCast(d, hn::Or(hn::ShiftLeft<13>(size), hn::Set(du, 0x7f800000)));
  const auto is_special = hn::RebindMask(d, hn::Gt(size, hn::Set(du, 0x7bff)));
  return hn::Or(
      hn::IfThenElse(is_special, special, scaled), hn::BitCast(d, sign));
}

HWY_INLINE hn::Vec<DU> float_to_half(V x) {
  const DU du;
  const D d;
  const auto rounded = math::round_half(d, x);
  const auto bits = hn::BitCast(du, rounded);
  const auto sign = hn::ShiftRight<16>(hn::And(bits, hn::Set(du, 0x80000000)));
  const auto size = hn::Abs(rounded);
  const auto scaled =
      hn::ShiftRight<13>(hn::BitCast(du, hn::Mul(size, hn::Set(d, 0x1p-112f))));
  const auto infinite = hn::RebindMask(du, hn::Gt(size, hn::Set(d, 65504.0f)));
  const auto nan = hn::RebindMask(du, hn::IsNaN(x));
  auto half = hn::IfThenElse(infinite, hn::Set(du, 0x7c00), scaled);
  half = hn::IfThenElse(nan, hn::Set(du, 0x7e00), half);
  return hn::Or(half, sign);
}

void FromHalf(const uint16_t* from, int64_t count, float* to) {
  convert(from, count, to, [](const uint16_t* in, float* out) HWY_ATTR {
    const auto bits = hn::PromoteTo(DU(), hn::LoadU(D16(), in));
    hn::StoreU(half_to_float(bits), D(), out);
  });
}

void ToHalf(const float* from, int64_t count, uint16_t* to) {
  convert(from, count, to, [](const float* in, uint16_t* out) HWY_ATTR {
    const auto half = float_to_half(hn::LoadU(D(), in));
    hn::StoreU(hn::TruncateTo(D16(), half), D16(), out);
  });
}

#endif

template <class F>
HWY_INLINE void accumulate(
    float* totals,
    const float* lanes,
    int64_t stride,
    int64_t groups,
    const F& f) {
  const D d;
  constexpr int64_t kVectors = kGroup / kVector;
  V sums[kVectors];
  for (int64_t k = 0; k < kVectors; ++k) {
    sums[k] = hn::LoadU(d, totals + k * kVector);
  }
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t k = 0; k < kVectors; ++k) {
      sums[k] = f(d, sums[k], hn::LoadU(d, lanes + k * kVector));
    }
    lanes += stride;
  }
  for (int64_t k = 0; k < kVectors; ++k) {
    hn::StoreU(sums[k], d, totals + k * kVector);
  }
}

// The same pairs on every instruction set.
template <class F>
HWY_INLINE float fold(const float* totals, const F& f) {
  float last[kGroup];
  std::copy(totals, totals + kGroup, last);
  int64_t half = kGroup / 2;
  for (; half >= kVector; half /= 2) {
    for (int64_t i = 0; i < half; i += kVector) {
      const auto x = hn::LoadU(D(), last + i);
      hn::StoreU(f(D(), x, hn::LoadU(D(), last + half + i)), D(), last + i);
    }
  }
  const hn::CappedTag<float, 1> one;
  for (; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) {
      const auto x = hn::LoadU(one, last + i);
      hn::StoreU(f(one, x, hn::LoadU(one, last + half + i)), one, last + i);
    }
  }
  return last[0];
}

// visit(f) with the combining function.
template <class Visit>
HWY_INLINE auto with_function(Combine combine, const Visit& visit) {
  switch (combine) {
    case Combine::Product:
      return visit([](auto, auto x, auto y) HWY_ATTR { return hn::Mul(x, y); });
    case Combine::Min:
      return visit([](auto d, auto x, auto y)
                       HWY_ATTR { return math::min_number(d, x, y); });
    case Combine::Max:
      return visit([](auto d, auto x, auto y)
                       HWY_ATTR { return math::max_number(d, x, y); });
    default:
      return visit([](auto, auto x, auto y) HWY_ATTR { return hn::Add(x, y); });
  }
}

void Accumulate(
    Combine combine,
    float* totals,
    const float* lanes,
    int64_t stride,
    int64_t groups) {
  with_function(combine, [&](auto f) HWY_ATTR {
    accumulate(totals, lanes, stride, groups, f);
  });
}

float Fold(Combine combine, const float* totals) {
  return with_function(
      combine, [&](auto f) HWY_ATTR { return fold(totals, f); });
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(FromHalf);
HWY_EXPORT(ToHalf);
HWY_EXPORT(FromBfloat);
HWY_EXPORT(ToBfloat);
HWY_EXPORT(Accumulate);
HWY_EXPORT(Fold);

void from_half(const uint16_t* from, int64_t count, float* to) {
  HWY_DYNAMIC_DISPATCH(FromHalf)(from, count, to);
}
void to_half(const float* from, int64_t count, uint16_t* to) {
  HWY_DYNAMIC_DISPATCH(ToHalf)(from, count, to);
}
void from_bfloat(const uint16_t* from, int64_t count, float* to) {
  HWY_DYNAMIC_DISPATCH(FromBfloat)(from, count, to);
}
void to_bfloat(const float* from, int64_t count, uint16_t* to) {
  HWY_DYNAMIC_DISPATCH(ToBfloat)(from, count, to);
}

void accumulate_lanes(
    dialect::Combine combine,
    float* totals,
    const float* lanes,
    int64_t stride,
    int64_t groups) {
  HWY_DYNAMIC_DISPATCH(Accumulate)(combine, totals, lanes, stride, groups);
}
float fold_lanes(dialect::Combine combine, const float* totals) {
  return HWY_DYNAMIC_DISPATCH(Fold)(combine, totals);
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
