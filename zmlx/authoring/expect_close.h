// SPDX-License-Identifier: MIT
// What the tests of operations from text share.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// Shape, dtype and values; NaN equals NaN.
inline void expect_close(
    const mx::array& got,
    const mx::array& wanted,
    float tolerance = 1e-5f) {
  ASSERT_EQ(got.shape(), wanted.shape());
  ASSERT_EQ(got.dtype(), wanted.dtype());
  const auto a = mx::astype(got, mx::float32);
  const auto b = mx::astype(wanted, mx::float32);
  EXPECT_TRUE(mx::allclose(a, b, tolerance, tolerance, true).item<bool>())
      << got << "\nwanted\n"
      << wanted;
}

/// What std::invalid_argument says that a call throws.
inline std::string error(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::invalid_argument& failure) {
    return failure.what();
  }
  return "no error";
}

} // namespace zmlx
