// SPDX-License-Identifier: MIT
// The system's C++ compiler, and a folder that keeps what it made.
#pragma once

#include <string>

namespace zmlx {

/// A function of a library made from C++ text, compiled on first use and kept
/// below env_cache_dir(). Several processes may ask for one text at once; an
/// entry that is not what was written is made anew. `op` names the kernel.
/// Throws BackendError without a compiler, CompileError for text it refuses.
void* compiled_function(
    const std::string& op,
    const std::string& text,
    const char* symbol);

/// What the compiler calls itself, or why there is none; for `zmlx doctor`.
std::string cpu_compiler_description();

/// The folder of compiled kernels.
std::string compiled_kernels_dir();

} // namespace zmlx
