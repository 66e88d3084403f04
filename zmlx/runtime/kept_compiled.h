// SPDX-License-Identifier: MIT
// Kernels of ours in the folder where MLX keeps its own compiled CUDA kernels.
#pragma once

#include <functional>
#include <future>
#include <string>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// A kernel of mx::fast::cuda_kernel that is called with arrays of the same
/// types and without template arguments every time. The first call puts its
/// compiled form where MLX looks before it compiles: MLX looks there for every
/// kernel, but writes only its own there, so that each process would compile
/// ours anew. Later calls name that form, where the kernel reads no shapes, and
/// spare MLX the making and hashing of its text, some 60 kB a call. Where it
/// cannot be done (no NVRTC, no headers, another MLX, a folder that cannot be
/// written), MLX compiles as ever. `architecture` as NVRTC names it, "sm_90a";
/// where empty, the device's.
mx::fast::CustomKernelFunction kept_compiled(
    mx::fast::CustomKernelFunction kernel,
    std::string architecture = "");

/// Compiles what calls in `build` need, as many texts at once as there are
/// processors. While build() runs, kernels of kept_compiled that this thread
/// calls for the first time compile nothing, but their texts are noted; so what
/// it builds is not to be evaluated, or MLX compiles it anew. What it throws
/// ends the noting and goes no further.
void compile_together(const std::function<void()>& build);

/// The same in the background, once build() has run. A kernel whose text is
/// being compiled waits for it at its first call. The future waits for the
/// end when it is destroyed.
std::future<void> compile_ahead(const std::function<void()>& build);

} // namespace zmlx
