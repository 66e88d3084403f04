// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/dense.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/kernels/common/dense.cpp"
#define HWY_WANT_AVX3_DL 1
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/kernels/common/float_tile-inl.h"
#include "zmlx/kernels/common/matvec_generic-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

// Sums that a row is split into, enough to hide the latency of FMA.
constexpr int kSums = 8;
constexpr int64_t kAheadBytes = 4096;

/// 16-bit values are read as integers: their floats' bits move into place.
template <FloatType kType>
HWY_INLINE FloatVector load_row(const void* row, int64_t i) {
  const Floats d;
  if constexpr (kType == FloatType::F32) {
    return hn::LoadU(d, static_cast<const float*>(row) + i);
  } else if constexpr (kType == FloatType::BF16) {
    const hn::Rebind<hwy::bfloat16_t, Floats> halves;
    return hn::PromoteTo(
        d, hn::LoadU(halves, static_cast<const hwy::bfloat16_t*>(row) + i));
  } else {
    const hn::Rebind<hwy::float16_t, Floats> halves;
    return hn::PromoteTo(
        d, hn::LoadU(halves, static_cast<const hwy::float16_t*>(row) + i));
  }
}

template <FloatType kType>
HWY_INLINE float dot_row(const void* row, const float* x, int64_t cols) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr auto kSize = static_cast<int64_t>(size_of(kType));
  FloatVector sums[kSums];
  clear(sums);
  int64_t i = 0;
  for (; i + kSums * lanes <= cols; i += kSums * lanes) {
    const char* ahead = static_cast<const char*>(row) + kAheadBytes + i * kSize;
    unrolled<kSums>([&](auto s) ZMLX_INLINE_LAMBDA {
      const int64_t at = i + s * lanes;
      if (s * lanes * kSize % 64 == 0) {
        hwy::Prefetch(ahead + s * lanes * kSize);
      }
      sums[s] =
          hn::MulAdd(load_row<kType>(row, at), hn::LoadU(d, x + at), sums[s]);
    });
  }
  for (; i + lanes <= cols; i += lanes) {
    sums[0] = hn::MulAdd(load_row<kType>(row, i), hn::LoadU(d, x + i), sums[0]);
  }
  for (int half = kSums / 2; half > 0; half /= 2) {
    for (int s = 0; s < half; ++s) {
      sums[s] = hn::Add(sums[s], sums[s + half]);
    }
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums[0]));
  for (; i < cols; ++i) {
    sum += load_float(row, kType, i) * x[i];
  }
  return sum;
}

template <FloatType kType>
void dot_rows(
    const DenseMatrix& w,
    const float* x,
    int64_t begin,
    int64_t end,
    float* y) {
  for (int64_t row = begin; row < end; ++row) {
    y[row - begin] = dot_row<kType>(w.row(row), x, w.cols);
  }
}

void DenseMatvec(
    const DenseMatrix& w,
    const float* x,
    int64_t begin,
    int64_t end,
    float* y) {
  switch (w.type) {
    case FloatType::F32:
      return dot_rows<FloatType::F32>(w, x, begin, end, y);
    case FloatType::F16:
      return dot_rows<FloatType::F16>(w, x, begin, end, y);
    case FloatType::BF16:
      return dot_rows<FloatType::BF16>(w, x, begin, end, y);
  }
}

void CopyRow(const DenseMatrix& w, int64_t row, float* out) {
  for (int64_t col = 0; col < w.cols; ++col) {
    out[col] = load_float(w.row(row), w.type, col);
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(DenseMatvec);
HWY_EXPORT(CopyRow);

void matvec(
    const DenseMatrix& w,
    const float* x,
    int64_t begin,
    int64_t end,
    float* y) {
  HWY_DYNAMIC_DISPATCH(DenseMatvec)(w, x, begin, end, y);
}

void copy_row(const DenseMatrix& w, int64_t row, float* out) {
  HWY_DYNAMIC_DISPATCH(CopyRow)(w, row, out);
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
