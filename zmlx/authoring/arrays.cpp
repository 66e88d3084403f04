// SPDX-License-Identifier: MIT
#include "zmlx/authoring/arrays.h"

namespace zmlx {

mx::array
normal_values(const mx::Shape& shape, mx::Dtype dtype, uint64_t seed) {
  // The same key gives other bits in another type, so draw in float32.
  return mx::astype(
      mx::random::normal(shape, mx::float32, mx::random::key(seed)), dtype);
}

} // namespace zmlx
