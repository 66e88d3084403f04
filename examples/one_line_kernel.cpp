// SPDX-License-Identifier: MIT
// One line of text becomes an operation: checked against composed MLX with its
// gradient, then timed against it.
#include <exception>
#include <iostream>

#include "zmlx/zmlx.h"

namespace mx = mlx::core;

int main() {
  try {
    const auto mish = zmlx::elementwise("x * tanh(log(1 + exp(x)))");
    const auto ours = [&](const zmlx::Arrays& in) {
      return zmlx::Arrays{mish(in[0])};
    };
    const auto composed = [](const zmlx::Arrays& in) {
      const auto one = mx::array(1, in[0].dtype());
      return zmlx::Arrays{in[0] * mx::tanh(mx::log(one + mx::exp(in[0])))};
    };

    // Values and gradients, for these shapes. Throws with a report if not.
    zmlx::testing::assert_matches(ours, composed, {{}, {7}, {3, 5}, {0}});
    std::cout << "matches; d/dx = " << mish.gradient_text() << "\n\n";

    // First over second: how many times faster the line of text is.
    const std::vector<zmlx::bench::Implementation> sides = {
        {"composed", composed}, {"one line", ours}};
    const auto rows = zmlx::bench::compare(
        sides,
        {{1024, 1024}},
        {.dtypes = {mx::float32}, .warmup = 2, .iterations = 5});
    std::cout << zmlx::bench::to_text(sides, rows);
    return rows[0].failure.empty() ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
