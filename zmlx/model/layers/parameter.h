// SPDX-License-Identifier: MIT
// A floating-point parameter, as stored and as stock modules compute with it.
#pragma once

#include <utility>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// Stock modules read `value`, in the type of activations as after mlx_lm's
/// set_dtype; fused ones read `stored`, usually memory mapped. The cast is lazy
/// and kept once made, so a patched model never holds both.
class Parameter {
 public:
  Parameter(mx::array stored, mx::Dtype dtype)
      : stored_(std::move(stored)), value_(mx::astype(stored_, dtype)) {}

  const mx::array& stored() const {
    return stored_;
  }
  const mx::array& value() const {
    return value_;
  }
  /// Forgets an evaluated cast; the next use casts again.
  void release() {
    if (stored_.dtype() != value_.dtype()) {
      value_ = mx::astype(stored_, value_.dtype());
    }
  }

 private:
  mx::array stored_, value_;
};

} // namespace zmlx
