// SPDX-License-Identifier: MIT
// A row program step by step in MLX's graph: what its derivatives are taken of
// where an update runs in the order of the row.
#pragma once

#include <memory>
#include <vector>

#include "mlx/mlx.h"
#include "zmlx/authoring/rows.h"

namespace zmlx {

/// Rows that are longer have no derivative of an update in order: each element
/// is a step in the graph.
inline constexpr int kMaxUnrolled = 16384;

/// What run_rows() computes, as operations that each have a derivative. A step
/// works on all rows at once.
std::vector<mx::array> run_unrolled(
    const Rows& rows,
    int axis,
    const std::vector<mx::array>& inputs,
    const std::vector<mx::Dtype>& dtypes,
    const mx::Stream& stream);

} // namespace zmlx
