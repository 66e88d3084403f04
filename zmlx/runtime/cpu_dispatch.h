// SPDX-License-Identifier: MIT
// What eval_cpu of every primitive of ours does: memory, then work on a stream.
#pragma once

#include <vector>

#include "mlx/mlx.h"
#include "zmlx/runtime/cpu_op.h"

namespace zmlx {

/// Lets output write over input, where nobody else needs input and it lies as
/// output will. Says whether it does.
bool take_over(const mx::array& input, mx::array& output);

/// Allocates the outputs that have no memory yet.
void allocate(std::vector<mx::array>& outputs);

/// Puts task on a CPU stream.
void dispatch_cpu(
    const mx::Stream& stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    CpuTask task);

} // namespace zmlx
