// SPDX-License-Identifier: MIT
// Steps computed in float64: powers, hyperbolic and error functions.
#include "zmlx/runtime/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/runtime/expression_special.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/runtime/expression_steps-inl.h"
#include "zmlx/runtime/simd_double-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

using dialect::Op;

ZMLX_LONG_STEP(Exp10Step, 1, math::Exp10)
ZMLX_LONG_STEP(SinhStep, 1, math::Sinh)
ZMLX_LONG_STEP(CoshStep, 1, math::Cosh)
ZMLX_LONG_STEP(AsinhStep, 1, math::Asinh)
ZMLX_LONG_STEP(AcoshStep, 1, math::Acosh)
ZMLX_LONG_STEP(AtanhStep, 1, math::Atanh)
ZMLX_LONG_STEP(ErfStep, 1, math::Erf)
ZMLX_LONG_STEP(ErfcStep, 1, math::Erfc)
ZMLX_LONG_STEP(PowStep, 2, math::Pow)
ZMLX_LONG_STEP(FmodStep, 2, math::Fmod)

StepFunction FindSpecial(Op op) {
  switch (op) {
    case Op::Exp10:
      return Exp10Step;
    case Op::Sinh:
      return SinhStep;
    case Op::Cosh:
      return CoshStep;
    case Op::Asinh:
      return AsinhStep;
    case Op::Acosh:
      return AcoshStep;
    case Op::Atanh:
      return AtanhStep;
    case Op::Erf:
      return ErfStep;
    case Op::Erfc:
      return ErfcStep;
    case Op::Pow:
      return PowStep;
    case Op::Fmod:
      return FmodStep;
    default:
      return nullptr;
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(FindSpecial);

StepFunction special_step(dialect::Op op) {
  return HWY_DYNAMIC_DISPATCH(FindSpecial)(op);
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
