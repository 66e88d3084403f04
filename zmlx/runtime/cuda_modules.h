// SPDX-License-Identifier: MIT
// Kernels of ours in the folder where MLX keeps its own compiled CUDA kernels.
#pragma once

#include <filesystem>
#include <optional>
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
/// written), MLX compiles as ever.
mx::fast::CustomKernelFunction kept_compiled(
    mx::fast::CustomKernelFunction kernel);

/// A compiled text and the name that its kernel has in there.
struct CudaModule {
  std::string binary, symbol;
};

/// The file name, without its end, that MLX looks for.
std::string cuda_module_name(
    const std::string& kernel,
    const std::string& source);

/// Puts a module into the folder as MLX reads it: NAME.ptx and NAME.txt, whole
/// or not at all. `kernel` is what MLX calls its function. Returns whether it
/// is there now.
bool write_cuda_module(
    const std::filesystem::path& folder,
    const std::string& name,
    const std::string& kernel,
    const CudaModule& module);

/// The module of a text that MLX made for a custom kernel; none where NVRTC is
/// not loaded or refuses it. `architecture` as NVRTC names it: "sm_90a".
std::optional<CudaModule> compile_cuda_module(
    const std::string& kernel,
    const std::string& source,
    const std::string& architecture);

} // namespace zmlx
