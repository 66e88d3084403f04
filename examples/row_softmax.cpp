// SPDX-License-Identifier: MIT
// Softmax by map_reduce: two totals of a row, and what becomes of each element.
// Rows of any length, in parallel, with gradients.
#include <exception>
#include <iostream>

#include "zmlx/zmlx.h"

namespace mx = mlx::core;

int main() {
  try {
    const auto softmax = zmlx::map_reduce(
        {.pass1 = {.init = "-INFINITY", .update = "max(acc1, x)"},
         .pass2 = {.init = "0", .update = "acc2 + exp(x - s1)"},
         .write = "exp(x - s1) / s2",
         .name = "softmax"});
    zmlx::testing::assert_matches(
        [&](const zmlx::Arrays& in) { return zmlx::Arrays{softmax(in[0])}; },
        [](const zmlx::Arrays& in) {
          return zmlx::Arrays{mx::softmax(in[0], -1)};
        },
        {{1}, {4, 1000}, {2, 3, 37}, {0, 8}});

    // The same walk with a weight that each place of a row has.
    const auto weighted_norm = zmlx::map_reduce(
        {.pass1 = {.init = "0", .update = "acc1 + x * x"},
         .write = "x * rsqrt(s1 / D + 1e-6f) * weight",
         .name = "rms_norm",
         .inputs = {"x", "weight"}});
    const auto x = mx::random::normal({4, 256});
    std::cout
        << "softmax of a row sums to " << mx::sum(softmax(x), -1)
        << "\nrms of a normalised row: "
        << mx::sqrt(mx::mean(mx::square(weighted_norm(x, mx::ones({256}))), -1))
        << '\n';
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
