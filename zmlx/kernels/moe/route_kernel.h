// SPDX-License-Identifier: MIT
// The router's kernel in Metal's dialect, for the devices that are not the CPU.
#pragma once

#include "zmlx/kernels/moe/router.h"

namespace zmlx::moe {

/// route() of logits (..., experts), up to 1024 of them and at least one token,
/// as a kernel of the default device; checked arguments only. bias: (experts)
/// float32. Both results are outputs of one primitive, whose first inputs are
/// logits and bias.
std::pair<mx::array, mx::array> route_by_kernel(
    const mx::array& logits,
    const RouterSpec& spec,
    const std::optional<mx::array>& bias);

} // namespace zmlx::moe
