// SPDX-License-Identifier: MIT
// The router's kernel in Metal's dialect, for the devices that are not the CPU.
#pragma once

#include "zmlx/kernels/moe/router.h"

namespace zmlx::moe {

/// route() of logits (tokens, experts), up to 1024 of them, as a kernel of the
/// default device; checked arguments only. bias: (experts) float32.
std::pair<mx::array, mx::array> route_by_kernel(
    const mx::array& logits,
    const RouterSpec& spec,
    const std::optional<mx::array>& bias);

} // namespace zmlx::moe
