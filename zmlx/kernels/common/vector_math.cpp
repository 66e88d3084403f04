// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/vector_math.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/kernels/common/vector_math.cpp"
#define HWY_WANT_AVX3_DL 1
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/runtime/simd_float-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace math = zmlx::simd::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;

// Calls step(i, d) over whole vectors, then over the rest one by one.
template <class Step>
HWY_INLINE void for_each_vector(int64_t count, const Step& step) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    step(i, d);
  }
  for (; i < count; ++i) {
    step(i, hn::CappedTag<float, 1>());
  }
}

float Dot(const float* a, const float* b, int64_t count) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    sum0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum0);
    sum1 = hn::MulAdd(
        hn::LoadU(d, a + i + lanes), hn::LoadU(d, b + i + lanes), sum1);
    sum2 = hn::MulAdd(
        hn::LoadU(d, a + i + 2 * lanes), hn::LoadU(d, b + i + 2 * lanes), sum2);
    sum3 = hn::MulAdd(
        hn::LoadU(d, a + i + 3 * lanes), hn::LoadU(d, b + i + 3 * lanes), sum3);
  }
  for (; i + lanes <= count; i += lanes) {
    sum0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum0);
  }
  const auto sums = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

void Axpy(float scale, const float* x, float* y, int64_t count) {
  for_each_vector(count, [&](int64_t i, auto d) {
    hn::StoreU(
        hn::MulAdd(hn::Set(d, scale), hn::LoadU(d, x + i), hn::LoadU(d, y + i)),
        d,
        y + i);
  });
}

void SiluMul(const float* gate, const float* up, float* out, int64_t count) {
  for_each_vector(count, [&](int64_t i, auto d) {
    const auto g = hn::LoadU(d, gate + i);
    const auto silu = hn::Mul(g, math::Sigmoid(d, g));
    hn::StoreU(hn::Mul(silu, hn::LoadU(d, up + i)), d, out + i);
  });
}

float ExpAndSum(float* x, float most, int64_t count) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto e = math::Exp(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, most)));
    hn::StoreU(e, d, x + i);
    sums = hn::Add(sums, e);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  const hn::CappedTag<float, 1> d1;
  for (; i < count; ++i) {
    x[i] = hn::GetLane(math::Exp(d1, hn::Set(d1, x[i] - most)));
    sum += x[i];
  }
  return sum;
}

void ScaleMul(
    const float* x,
    float scale,
    const float* weight,
    float* out,
    int64_t count) {
  for_each_vector(count, [&](int64_t i, auto d) {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale));
    hn::StoreU(hn::Mul(scaled, hn::LoadU(d, weight + i)), d, out + i);
  });
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(Dot);
HWY_EXPORT(Axpy);
HWY_EXPORT(SiluMul);
HWY_EXPORT(ExpAndSum);
HWY_EXPORT(ScaleMul);

float dot(const float* a, const float* b, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(Dot)(a, b, count);
}

float rms_scale(const float* x, int64_t count, float eps) {
  const float mean = dot(x, x, count) / static_cast<float>(count);
  return 1.0f / std::sqrt(mean + eps);
}

void axpy(float scale, const float* x, float* y, int64_t count) {
  HWY_DYNAMIC_DISPATCH(Axpy)(scale, x, y, count);
}

void silu_mul(const float* gate, const float* up, float* out, int64_t count) {
  HWY_DYNAMIC_DISPATCH(SiluMul)(gate, up, out, count);
}

float exp_and_sum(float* x, float most, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(ExpAndSum)(x, most, count);
}

void scale_mul(
    const float* x,
    float scale,
    const float* weight,
    float* out,
    int64_t count) {
  HWY_DYNAMIC_DISPATCH(ScaleMul)(x, scale, weight, out, count);
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
