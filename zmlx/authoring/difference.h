// SPDX-License-Identifier: MIT
// Whether two arrays are the same up to rounding, and where they are not.
#pragma once

#include <string>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// got may be off by absolute + relative * |want| + of_largest * the largest
/// finite |want| of the array, or `largest` where that is more. NaN equals NaN
/// only, infinities only themselves.
struct Tolerance {
  double absolute = 0, relative = 0, of_largest = 0, largest = 0;
};

/// The largest finite |value| of an array; 0: none.
double largest_finite(const mx::array& array);

/// The distance from one to the next larger value of a floating type.
double epsilon_of(mx::Dtype dtype);

/// "" when got is want up to the tolerance; else what differs: the shapes, or
/// how many values, the worst of them and where it is. Types may differ (an
/// oracle is wider); integers and bool are compared exactly.
std::string difference(
    const mx::array& got,
    const mx::array& want,
    const Tolerance& tolerance);

/// "" when both have the same shape, type and bytes; else what differs.
std::string bit_difference(const mx::array& got, const mx::array& want);

} // namespace zmlx
