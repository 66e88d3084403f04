// SPDX-License-Identifier: MIT
// Trigonometric steps.
#include "zmlx/runtime/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/runtime/expression_trig.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/runtime/expression_steps-inl.h"
#include "zmlx/runtime/simd_trig-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

using dialect::Op;

ZMLX_LONG_STEP(SinStep, 1, math::Sin)
ZMLX_LONG_STEP(CosStep, 1, math::Cos)
ZMLX_LONG_STEP(TanStep, 1, math::Tan)
ZMLX_LONG_STEP(SinPiStep, 1, math::SinPi)
ZMLX_LONG_STEP(CosPiStep, 1, math::CosPi)
ZMLX_LONG_STEP(TanPiStep, 1, math::TanPi)
ZMLX_LONG_STEP(AsinStep, 1, math::Asin)
ZMLX_LONG_STEP(AcosStep, 1, math::Acos)
ZMLX_LONG_STEP(AtanStep, 1, math::Atan)
ZMLX_LONG_STEP(Atan2Step, 2, math::Atan2)

StepFunction FindTrig(Op op) {
  switch (op) {
    case Op::Sin:
      return SinStep;
    case Op::Cos:
      return CosStep;
    case Op::Tan:
      return TanStep;
    case Op::SinPi:
      return SinPiStep;
    case Op::CosPi:
      return CosPiStep;
    case Op::TanPi:
      return TanPiStep;
    case Op::Asin:
      return AsinStep;
    case Op::Acos:
      return AcosStep;
    case Op::Atan:
      return AtanStep;
    case Op::Atan2:
      return Atan2Step;
    default:
      return nullptr;
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(FindTrig);

StepFunction trig_step(dialect::Op op) {
  return HWY_DYNAMIC_DISPATCH(FindTrig)(op);
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
