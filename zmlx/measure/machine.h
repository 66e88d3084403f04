// SPDX-License-Identifier: MIT
// What the machine is: the names that stand in capsules and bench rows.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace zmlx::measure {

/// The machine as found; strings are "" where the system does not tell.
struct Machine {
  std::string cpu; // "AMD EPYC 9B45"
  int cores = 0; // logical
  std::string simd; // Highway's name of the best target: "AVX3_ZEN4"
  std::string gpu; // "" when the default device is the CPU
  std::string backend; // "cpu", "metal" or "cuda"
  std::string os; // "Linux 6.1.0 x86_64"
  uint64_t memory_bytes = 0;
  std::string mlx_version;

  /// The device that does the work.
  const std::string& device() const {
    return gpu.empty() ? cpu : gpu;
  }
};

/// Looks at this machine and at MLX's default device.
Machine this_machine();

/// The environment variables that can change a result or a timing: MLX_*,
/// ZMLX_*, OMP_* and KMP_*, sorted by name.
std::map<std::string, std::string> relevant_environment();

} // namespace zmlx::measure
