// SPDX-License-Identifier: MIT
// Compiled CUDA kernels as MLX keeps them in its folder.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace zmlx {

/// A compiled text and the name that its kernel has in there.
struct CudaModule {
  std::string binary, symbol;
};

/// What MLX calls the function of a custom kernel.
std::string cuda_function_name(const std::string& kernel);

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
