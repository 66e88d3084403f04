// SPDX-License-Identifier: MIT
// Finds a bug that a GPU would hide: a kernel reads one element past the end
// of its input.
#include <iostream>
#include <string>

#include "zmlx/zmlx.h"

namespace mx = mlx::core;

namespace {

zmlx::Kernel difference(const std::string& condition) {
  return zmlx::Kernel(
      {.name = "difference",
       .inputs = {"x"},
       .body = "uint i = thread_position_in_grid.x;\n"
               "uint last = uint(x_shape[0]) - 1;\n"
               "bool inside = " +
           condition +
           ";\n"
           "out[i] = inside ? x[i + 1] - x[i] : 0.0f;\n"});
}

} // namespace

int main() {
  const auto x = mx::arange(0, 1000, mx::float32);
  std::string found;
  try {
    difference("i <= last").checked()({x});
  } catch (const zmlx::KernelCheckError& error) {
    found = error.what();
  }
  std::cout << found << '\n';

  // Mended, the checked mode has nothing to say.
  const auto out = difference("i < last").checked()({x})[0];
  const bool good = mx::sum(out).item<float>() == 999.0f &&
      found ==
          "[kernel difference] an index of x must be 0 to 999, got 1000 in "
          "thread (999, 0, 0) at body:4.";
  return good ? 0 : 1;
}
