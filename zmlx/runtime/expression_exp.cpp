// SPDX-License-Identifier: MIT
// Steps computed in float32: exponentials and logarithms.
#include "zmlx/runtime/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/runtime/expression_exp.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/runtime/expression_steps-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

using dialect::Op;

ZMLX_STEP(ExpStep, 1, math::Exp)
ZMLX_STEP(Exp2Step, 1, math::Exp2)
ZMLX_STEP(Expm1Step, 1, math::Expm1)
ZMLX_STEP(LogStep, 1, math::Log)
ZMLX_STEP(Log2Step, 1, math::Log2)
ZMLX_STEP(Log10Step, 1, math::Log10)
ZMLX_STEP(Log1pStep, 1, math::Log1p)
ZMLX_STEP(TanhStep, 1, math::Tanh)
ZMLX_STEP(SigmoidStep, 1, math::Sigmoid)
ZMLX_STEP(RsqrtStep, 1, math::Rsqrt)

StepFunction FindExp(Op op) {
  switch (op) {
    case Op::Exp:
      return ExpStep;
    case Op::Exp2:
      return Exp2Step;
    case Op::Expm1:
      return Expm1Step;
    case Op::Log:
      return LogStep;
    case Op::Log2:
      return Log2Step;
    case Op::Log10:
      return Log10Step;
    case Op::Log1p:
      return Log1pStep;
    case Op::Tanh:
      return TanhStep;
    case Op::Sigmoid:
      return SigmoidStep;
    case Op::Rsqrt:
      return RsqrtStep;
    default:
      return nullptr;
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(FindExp);

StepFunction exp_step(dialect::Op op) {
  return HWY_DYNAMIC_DISPATCH(FindExp)(op);
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
