// SPDX-License-Identifier: MIT
// Products with one matrix or chosen ones of a stack, of stock MLX operations.
#pragma once

#include <optional>

#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx::moe {

namespace mx = mlx::core;

/// Which matrix of a stack each row is multiplied with.
struct ChosenMatrices {
  mx::array ids; // of the axes of x before its last two
  bool sorted = false;
};

/// x (..., 1, cols) times the matrices chosen for each row, or x (..., cols)
/// times the only one. Sorted rows of a narrow type take stacks that are packed
/// by way of floats on CUDA, where MLX reads a matrix anew for every row
/// (https://github.com/ml-explore/mlx/issues/4339).
mx::array product(
    const mx::array& x,
    const quant::AnyArrays& weight,
    const std::optional<ChosenMatrices>& chosen);

/// Whether so many pairs of tokens and experts are better sorted by expert: the
/// device is a GPU, and each expert has several.
bool worth_sorting(int64_t pairs, int experts);

/// Rows of x (tokens, dim) for each pair, by expert, and how to put the results
/// back.
struct SortedPairs {
  mx::array rows; // (pairs, 1, dim)
  mx::array ids; // (pairs), ascending
  mx::array back; // (pairs), places among the sorted ones
};

/// ids (tokens, top_k).
SortedPairs sort_pairs(const mx::array& x, const mx::array& ids);

} // namespace zmlx::moe
