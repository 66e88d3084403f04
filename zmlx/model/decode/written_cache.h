// SPDX-License-Identifier: MIT
// Caches that a GPU's step writes to unseen by MLX, as others may read them.
#pragma once

#include "mlx/mlx.h"

namespace zmlx::decode {

namespace mx = mlx::core;

/// `cache` as an array that shares its memory and, when somebody evaluates it,
/// first waits for `written`, an output of the step that writes to it. Nothing
/// waits for an array that is not evaluated.
mx::array once_written(const mx::array& cache, const mx::array& written);

/// The cache that once_written() was given, if nobody has evaluated the array;
/// other arrays as they are.
mx::array as_given(const mx::array& array);

} // namespace zmlx::decode
