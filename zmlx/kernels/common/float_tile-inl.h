// SPDX-License-Identifier: MIT
// The inner loop of float products, for every instruction set: columns of a
// panel in lanes, times a few vectors.

#if defined(ZMLX_COMMON_FLOAT_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_FLOAT_TILE_INL_H
#undef ZMLX_COMMON_FLOAT_TILE_INL_H
#else
#define ZMLX_COMMON_FLOAT_TILE_INL_H
#endif

#include <cstdint>
#include <utility>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using FloatVector = hn::Vec<Floats>;

// With sanitizers, GCC takes minutes and gigabytes over unrolled code.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ZMLX_INLINE_LAMBDA __attribute__((noinline))
constexpr bool kSanitized = true;
#else
#define ZMLX_INLINE_LAMBDA __attribute__((always_inline))
constexpr bool kSanitized = false;
#endif

/// step(0) .. step(kCount - 1) with constant arguments. Plain loops are
/// unrolled too late for GCC to keep an array of sums in registers.
template <int kCount, class Step>
HWY_INLINE void unrolled(const Step& step) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) ZMLX_INLINE_LAMBDA {
    (step(std::integral_constant<int, kIndex>()), ...);
  }(std::make_integer_sequence<int, kCount>());
}

// Sums of 2 vectors by 12 (32 registers) or 6 (16).
constexpr int kFloatVectors = 2;
constexpr int kFloatTile = kSanitized ? 2 : HWY_TARGET <= HWY_AVX3 ? 12 : 6;

/// sums[v * kTile + t] += sum over k < steps of
/// panel[k * panel_stride + v * lanes] * x[k * kStep + t * kStride].
template <int kTile, int kStep, int kStride>
HWY_INLINE void add_products(
    const float* panel,
    int64_t panel_stride,
    const float* x,
    int64_t steps,
    FloatVector (&sums)[kFloatVectors * kTile]) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t k = 0; k < steps; ++k) {
    FloatVector w[kFloatVectors];
    unrolled<kFloatVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
      w[v] = hn::LoadU(d, panel + k * panel_stride + v * lanes);
    });
    unrolled<kTile>([&](auto t) ZMLX_INLINE_LAMBDA {
      const FloatVector value = hn::Set(d, x[k * kStep + t * kStride]);
      unrolled<kFloatVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
        sums[v * kTile + t] = hn::MulAdd(w[v], value, sums[v * kTile + t]);
      });
    });
  }
}

template <int kCount>
HWY_INLINE void clear(FloatVector (&sums)[kCount]) {
  unrolled<kCount>([&](auto i)
                       ZMLX_INLINE_LAMBDA { sums[i] = hn::Zero(Floats()); });
}

/// Calls step with the constant `size`, 1 .. kMost.
template <int kMost, class Step>
HWY_INLINE void with_constant(int64_t size, const Step& step) {
  if (size == kMost) {
    step(std::integral_constant<int, kMost>());
  } else if constexpr (kMost > 1) {
    with_constant<kMost - 1>(size, step);
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
