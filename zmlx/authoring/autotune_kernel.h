// SPDX-License-Identifier: MIT
// Finds the fastest launch of a raw kernel by measuring.
#pragma once

#include <vector>

#include "zmlx/authoring/autotune.h"
#include "zmlx/authoring/kernel.h"

namespace zmlx {

struct TunedKernel {
  KernelLaunch best; // one of the candidates
  TuneResult result;
};

/// autotune() over launches of a kernel on inputs: sizes and template arguments
/// that it is called with. The result is kept for the kernel's text too.
TunedKernel autotune_kernel(
    const Kernel& kernel,
    const Arrays& inputs,
    const std::vector<KernelLaunch>& candidates,
    const TuneOptions& options = {});

/// launch with each threadgroup (n, 1, 1) of threadgroup_candidates(most).
std::vector<KernelLaunch> launch_candidates(
    const KernelLaunch& launch,
    int64_t most = 1024);

} // namespace zmlx
