// SPDX-License-Identifier: MIT
// Memory for what a CPU primitive computes.
#pragma once

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// Allocates as MLX does. Large buffers ask the system for large pages: the
/// first write to each of 16384 small pages takes longer than most operations.
mx::allocator::Data output_buffer(size_t bytes);

} // namespace zmlx
