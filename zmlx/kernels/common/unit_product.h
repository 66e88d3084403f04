// SPDX-License-Identifier: MIT
// A packed row times a vector in Metal's dialect, unit by unit: what kernels
// that multiply few vectors on a GPU share.
#pragma once

#include <cstdint>

#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx::quant {

/// MLX's own products read a matrix once for all rows, from here on.
constexpr int64_t kFewRows = 8;
/// Columns that a lane takes at once.
constexpr int kUnit = 32;
/// Units of a vector that a threadgroup holds, 36 floats each: 32 KiB, which
/// Metal allows.
constexpr int kHeldUnits = 224;

/// For a kernel's header: `Unit unit_at(held, u)`, unit u of a vector in
/// threadgroup memory, and `product<BITS, GROUP>(words, scales, biases, unit,
/// x)`, one unit of a row of an affine matrix times the vector's.
extern const char* const kUnitProduct;

/// Whether product() can read a matrix: affine rows of whole units.
bool fits_unit_product(const QuantizedArrays& w);

/// Threadgroups that take all rows of a matrix.
constexpr int groups_for(int rows, int rows_of_group) {
  return (rows + rows_of_group - 1) / rows_of_group;
}

} // namespace zmlx::quant
