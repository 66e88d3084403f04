// SPDX-License-Identifier: MIT
// One operation of an expression over a block of lanes.
#pragma once

#include <cstdint>

#include "zmlx/dialect/expression.h"

namespace zmlx::cpu {

/// Blocks are made of whole groups of lanes.
inline constexpr int64_t kGroup = 64;

/// Operands of a step. Lanes are 32 bits; a Bool is 0 or all ones.
struct StepArgs {
  const float* in[3];
  int64_t stride[3]; // kGroup, or 0: the same kGroup lanes again and again
  float* out; // may be an operand of stride kGroup
  int64_t groups;
};

using StepFunction = void (*)(const StepArgs&);

/// The function of an operation for this processor; operands are of type
/// `type`. Each knows some operations and gives nullptr for the others.
StepFunction plain_step(dialect::Op op, dialect::Type type);
StepFunction exp_step(dialect::Op op);
StepFunction special_step(dialect::Op op);
StepFunction trig_step(dialect::Op op);

/// The one of all those; `type` is that of the (last) operand.
StepFunction find_step(dialect::Op op, dialect::Type type);

} // namespace zmlx::cpu
