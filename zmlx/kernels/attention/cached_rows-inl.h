// SPDX-License-Identifier: MIT
// Vectors of cached rows, whatever they are stored as. Included once a target.

#if defined(ZMLX_ATTENTION_CACHED_ROWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_ATTENTION_CACHED_ROWS_INL_H
#undef ZMLX_ATTENTION_CACHED_ROWS_INL_H
#else
#define ZMLX_ATTENTION_CACHED_ROWS_INL_H
#endif

#include <algorithm>
#include <bit>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "zmlx/kernels/attention/cached_head.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Positions to ask for ahead of use, 4 kB of 64 floats: 29 GB/s a thread
// instead of 20.
constexpr int64_t kAhead = 16;

struct FloatRows {
  FloatRows(const CachedRows& rows, int64_t dim)
      : values(rows.floats), dim(dim) {}

  template <class D>
  HWY_INLINE hn::Vec<D> load(D d, int64_t position, int64_t i) const {
    return hn::LoadU(d, values + position * dim + i);
  }

  HWY_INLINE void prefetch(int64_t position) const {
    for (int64_t i = 0; i < dim; i += 16) {
      hwy::Prefetch(values + position * dim + i);
    }
  }

  const float* values;
  int64_t dim;
};

/// Fields of kBits, 8 or 4: of a byte's two the even column is the lower one.
template <int kBits>
struct FieldRows {
  FieldRows(const CachedRows& rows, int64_t dim)
      : rows(rows),
        dim(dim),
        groups(dim / rows.group_size),
        group_shift(std::countr_zero(static_cast<uint32_t>(rows.group_size))) {}

  template <class D>
  HWY_INLINE hn::Vec<D> load(D d, int64_t position, int64_t i) const {
    const hn::Rebind<int32_t, D> integers;
    const auto values =
        hn::ConvertTo(d, hn::PromoteTo(integers, fields(d, position, i)));
    const int64_t group = position * groups + (i >> group_shift);
    return hn::MulAdd(
        values, hn::Set(d, rows.scales[group]), hn::Set(d, rows.biases[group]));
  }

  HWY_INLINE void prefetch(int64_t position) const {
    const int64_t bytes = dim * kBits / 8;
    for (int64_t i = 0; i < bytes; i += 64) {
      hwy::Prefetch(rows.bytes + position * bytes + i);
    }
    hwy::Prefetch(rows.scales + position * groups);
    hwy::Prefetch(rows.biases + position * groups);
  }

  CachedRows rows;
  int64_t dim, groups;
  int group_shift; // a division a vector took half of its time

 private:
  template <class D>
  HWY_INLINE hn::Vec<hn::Rebind<uint8_t, D>>
  fields(D, int64_t position, int64_t i) const {
    const hn::Rebind<uint8_t, D> bytes;
    const uint8_t* at = rows.bytes + (position * dim + i) * kBits / 8;
    if constexpr (kBits == 8) {
      return hn::LoadU(bytes, at);
    } else if constexpr (hn::MaxLanes(D()) == 1) {
      return hn::Set(bytes, i % 2 == 0 ? *at & 15 : *at >> 4);
    } else {
      return both_fields(bytes, at);
    }
  }

#if HWY_TARGET != HWY_SCALAR // where a vector has one lane
  template <class D>
  static HWY_INLINE hn::Vec<D> both_fields(D bytes, const uint8_t* at) {
    const hn::Half<D> half;
    const auto two = hn::ZeroExtendVector(bytes, hn::LoadU(half, at));
    return hn::InterleaveLower(
        bytes, hn::And(two, hn::Set(bytes, 15)), hn::ShiftRight<4>(two));
  }
#endif
};

/// The largest of `count` >= 0 values and `most`.
HWY_INLINE float largest(const float* values, int64_t count, float most) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto best = hn::Set(d, most);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    best = hn::Max(hn::LoadU(d, values + i), best);
  }
  most = hn::GetLane(hn::MaxOfLanes(d, best));
  for (; i < count; ++i) {
    most = std::max(most, values[i]);
  }
  return most;
}

/// Calls step with the reader of these rows.
template <class Step>
HWY_INLINE void
with_rows(const CachedRows& rows, int64_t dim, const Step& step) {
  if (rows.floats) {
    step(FloatRows(rows, dim));
  } else if (rows.bits == 8) {
    step(FieldRows<8>(rows, dim));
  } else {
    step(FieldRows<4>(rows, dim));
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
