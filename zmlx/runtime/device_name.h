// SPDX-License-Identifier: MIT
// What MLX computes on, and what a device is called: for reports, and as a key
// of what is kept for it.
#pragma once

#include <string>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// Whether MLX computes on a GPU by default.
bool on_a_gpu();

/// "AMD EPYC 9B45"; "" where the system does not tell.
std::string cpu_name();

/// cpu_name(), or the GPU's name.
std::string device_name(const mx::Device& device);

/// "cpu", "metal" or "cuda".
const char* backend_name(const mx::Device& device);

} // namespace zmlx
