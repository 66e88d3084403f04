// SPDX-License-Identifier: MIT
// Loops of expression steps over groups of lanes, for every instruction set.
#include "zmlx/runtime/expression_steps.h"
#include "zmlx/runtime/simd_float-inl.h"

#if defined(ZMLX_RUNTIME_EXPRESSION_STEPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_RUNTIME_EXPRESSION_STEPS_INL_H_
#undef ZMLX_RUNTIME_EXPRESSION_STEPS_INL_H_
#else
#define ZMLX_RUNTIME_EXPRESSION_STEPS_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace math = zmlx::simd::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
inline constexpr int64_t kVector = hn::MaxLanes(D());
// Vectors at a time: enough to hide the latency of an operation, where so many
// fit a group.
inline constexpr int64_t kAtOnce = kVector * 4 <= kGroup ? 4 : 1;

// out = f(d, operands...) with kOperands of them. Operations of few
// instructions run on several vectors side by side; long ones overlap anyway.
template <int kOperands, int kSideBySide, class F>
HWY_INLINE void for_each_vector(const StepArgs& args, const F& f) {
  const D d;
  StepArgs at = args;
  for (int64_t group = 0; group < args.groups; ++group) {
    for (int64_t i = 0; i < kGroup; i += kSideBySide * kVector) {
      V y[kSideBySide];
      for (int k = 0; k < kSideBySide; ++k) {
        const int64_t lane = i + k * kVector;
        if constexpr (kOperands == 1) {
          y[k] = f(d, hn::LoadU(d, at.in[0] + lane));
        } else if constexpr (kOperands == 2) {
          y[k] = f(
              d, hn::LoadU(d, at.in[0] + lane), hn::LoadU(d, at.in[1] + lane));
        } else {
          y[k] =
              f(d,
                hn::LoadU(d, at.in[0] + lane),
                hn::LoadU(d, at.in[1] + lane),
                hn::LoadU(d, at.in[2] + lane));
        }
      }
      for (int k = 0; k < kSideBySide; ++k) {
        hn::StoreU(y[k], d, at.out + i + k * kVector);
      }
    }
    for (int k = 0; k < kOperands; ++k) {
      at.in[k] += at.stride[k];
    }
    at.out += kGroup;
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // per target

// The function of a step: FUNCTION(d, operands...) over every lane.
#define ZMLX_STEP(NAME, OPERANDS, FUNCTION)                                  \
  void NAME(const StepArgs& args) {                                          \
    for_each_vector<OPERANDS, kAtOnce>(                                      \
        args, [](auto d, auto... x) HWY_ATTR { return FUNCTION(d, x...); }); \
  }
#define ZMLX_LONG_STEP(NAME, OPERANDS, FUNCTION)                             \
  void NAME(const StepArgs& args) {                                          \
    for_each_vector<OPERANDS, 1>(                                            \
        args, [](auto d, auto... x) HWY_ATTR { return FUNCTION(d, x...); }); \
  }
