// SPDX-License-Identifier: MIT
// What the tests of raw kernels share.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "zmlx/authoring/kernel.h"

namespace zmlx {

using Arrays = std::vector<mx::array>;

inline std::vector<float> values(mx::array x) {
  x = mx::contiguous(mx::astype(x, mx::float32));
  x.eval();
  return {x.data<float>(), x.data<float>() + x.size()};
}

/// -2 to 4 in steps of 0.37, over and over.
inline mx::array ramp(int count) {
  const auto steps =
      mx::remainder(mx::arange(0, count, mx::float32), mx::array(17.0f));
  return mx::subtract(mx::multiply(steps, mx::array(0.37f)), mx::array(2.0f));
}

inline void expect_near(
    const mx::array& got,
    const std::vector<float>& want,
    float tolerance) {
  const auto have = values(got);
  ASSERT_EQ(have.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i]) || std::isinf(want[i])) {
      ASSERT_EQ(std::isnan(have[i]), std::isnan(want[i])) << "element " << i;
      ASSERT_TRUE(std::isnan(want[i]) || have[i] == want[i])
          << "element " << i << ": " << have[i];
    } else {
      ASSERT_NEAR(have[i], want[i], tolerance * (1 + std::abs(want[i])))
          << "element " << i;
    }
  }
}

inline std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

/// Runs a body in one threadgroup of `threads`; out has `size` floats, all -1.
inline mx::array run_body(
    const std::string& name,
    const std::string& body,
    const Arrays& inputs,
    int threads,
    int size,
    const std::string& header = "") {
  KernelSource source = {.name = name, .body = body, .header = header};
  for (size_t i = 0; i < inputs.size(); ++i) {
    source.inputs.emplace_back(1, static_cast<char>('a' + i));
  }
  const Kernel kernel(source);
  return kernel(
      inputs,
      {.grid = KernelSize{threads},
       .threadgroup = KernelSize{threads},
       .output_shapes = std::vector<mx::Shape>{{size}},
       .output_dtypes = std::vector<mx::Dtype>{mx::float32},
       .init_value = -1.0f})[0];
}

} // namespace zmlx
