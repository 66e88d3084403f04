// SPDX-License-Identifier: MIT
// Arrays that cost no memory until somebody evaluates them.
#pragma once

#include <memory>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// Where an array's values come from when they are wanted.
class ArraySource {
 public:
  virtual ~ArraySource() = default;
  /// Writes all of `out`, which is row contiguous. May throw: whoever evaluates
  /// gets it.
  virtual void fill(mx::array& out) const = 0;
};

/// An array that `source` fills when it is evaluated, on the CPU by any thread,
/// but by one at a time.
mx::array lazy_array(
    mx::Shape shape,
    mx::Dtype dtype,
    std::shared_ptr<const ArraySource> source);

/// What will fill an array that lazy_array() made; null for any other, and
/// once somebody has evaluated it.
const ArraySource* source_of(const mx::array& array);

/// Another array like one that lazy_array() made, for a holder who must not
/// keep what the others evaluate; any other array as it is.
mx::array unevaluated(const mx::array& array);

} // namespace zmlx
