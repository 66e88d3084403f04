// SPDX-License-Identifier: MIT
// Parts of the specs of kernels that read packed matrices.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "zmlx/authoring/kernel_spec.h"

namespace zmlx::packed {

/// `inputs`, then words, scales and biases of each matrix: its name and its
/// shape.
std::vector<KernelArray> with_matrices(
    std::vector<KernelArray> inputs,
    const std::vector<std::pair<std::string, std::string>>& matrices);

/// bits and group_size.
std::vector<KernelParam> packing_params();

/// Normal values of the case's shapes; `matrices` of them, from place `first`
/// on, quantised, and what is before them of the case's type.
Arrays
inputs_of(const KernelCase& one, size_t first, size_t matrices, uint64_t seed);

} // namespace zmlx::packed
