// SPDX-License-Identifier: MIT
#include "zmlx/authoring/arrays.h"

#include "zmlx/base/error.h"

namespace zmlx {

mx::array
normal_values(const mx::Shape& shape, mx::Dtype dtype, uint64_t seed) {
  // The same key gives other bits in another type, so draw in float32.
  return mx::astype(
      mx::random::normal(shape, mx::float32, mx::random::key(seed)), dtype);
}

std::vector<Arrays> normal_inputs(
    const char* op,
    const std::vector<mx::Shape>& shapes,
    const std::vector<mx::Dtype>& dtypes,
    int count,
    uint64_t seed) {
  if (shapes.empty() || dtypes.empty() || count < 1) {
    invalid(
        op,
        "shapes, dtypes and inputs must be at least 1, got ",
        shapes.size(),
        ", ",
        dtypes.size(),
        " and ",
        count,
        '.');
  }
  std::vector<Arrays> all;
  for (const auto& shape : shapes) {
    for (mx::Dtype dtype : dtypes) {
      Arrays inputs;
      for (int i = 0; i < count; ++i) {
        inputs.push_back(
            normal_values(shape, dtype, seed + static_cast<uint64_t>(i)));
      }
      mx::eval(inputs);
      all.push_back(std::move(inputs));
    }
  }
  return all;
}

} // namespace zmlx
