// SPDX-License-Identifier: MIT
// Random numbers for dropout: a hash of a seed and of the place of an element,
// so that nothing is kept between forward and backward.
#pragma once

#include <string>

#include "mlx/mlx.h"

namespace zmlx::dropout_mask {

namespace mx = mlx::core;

/// The arrays that the text's keep() takes, for an x of at least one axis:
/// float32 with whole numbers below 2^24. Rows, and places in a row, are
/// counted up to 2^24.
struct Places {
  mx::array column; // (dim)
  mx::array first, second; // (..., 1), keys of the row
};

/// The places of x's elements under a seed.
Places places(const char* op, const mx::array& x, uint64_t seed);

/// Text that defines float keep(float column, float first, float second): 0
/// with probability p, else 1 / (1 - p). A 32-bit counter hash of two rounds
/// of multiply and shift with the row's second key between them (constants of
/// Wellons' lowbias32), of which 24 bits are compared with p.
std::string text(double p);

/// Throws std::invalid_argument unless 0 <= p < 1.
void check(const char* op, double p);

/// The same factors, (..., dim), from MLX's integer operations.
mx::array
reference(const mx::Shape& shape, double p, uint64_t seed, mx::Dtype dtype);

} // namespace zmlx::dropout_mask
