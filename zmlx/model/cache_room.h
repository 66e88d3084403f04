// SPDX-License-Identifier: MIT
// Room for cached rows that are still to come.
#pragma once

#include <optional>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// Rows that a cache of `held` rows should have room for when it needs more:
/// at least `expected`, a quarter more than it had, and a multiple of
/// KVCache::kStep, so that growing costs little however long the text gets.
int grown_capacity(int held, int needed, int expected);

/// An array of this shape (batch, heads, capacity, width) that starts with the
/// first `used` rows of each head of `held`, and is zero after them. On the CPU
/// it lies in large pages, and every thread copies.
mx::array with_room(
    const std::optional<mx::array>& held,
    int used,
    const mx::Shape& shape,
    mx::Dtype dtype);

} // namespace zmlx
