// SPDX-License-Identifier: MIT
// One operation on one lane: how constants are folded.
#pragma once

#include <cstdint>

#include "zmlx/dialect/expression.h"

namespace zmlx::dialect {

/// The bits of `op` applied to the bits of its operands (of type `operands`;
/// for Select the type of its second and third).
uint32_t
evaluate(Op op, Type operands, uint32_t a, uint32_t b = 0, uint32_t c = 0);

} // namespace zmlx::dialect
