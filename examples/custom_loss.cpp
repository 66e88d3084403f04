// SPDX-License-Identifier: MIT
// A loss of one's own, log(cosh(p - t)) without overflow: nobody writes its
// gradient, and it fits a line in spite of an outlier.
#include <cmath>
#include <exception>
#include <iostream>

#include "zmlx/zmlx.h"

namespace mx = mlx::core;

int main() {
  try {
    // log(cosh(d)) = |d| + log1p(exp(-2 |d|)) - log(2).
    const auto log_cosh = zmlx::map(
        "log_cosh",
        "float d = abs(p - t); d + log1p(exp(-2 * d)) - M_LN2_F",
        {"p", "t"});
    std::cout << "d loss / d p = " << log_cosh.gradient_text(0) << '\n';

    // y = 3 x - 1, with one wild point.
    const mx::array x = mx::linspace(-2, 2, 64);
    mx::array y = mx::array(3.0f) * x - mx::array(1.0f);
    y = mx::where(mx::arange(64) == mx::array(5), y + mx::array(100.0f), y);
    const auto loss = [&](const zmlx::Arrays& line) {
      return mx::mean(log_cosh(line[0] * x + line[1], y));
    };
    const auto slopes = mx::grad(loss, {0, 1});

    zmlx::Arrays line = {mx::array(0.0f), mx::array(0.0f)};
    const float before = loss(line).item<float>();
    for (int step = 0; step < 300; ++step) {
      const auto slope = slopes(line);
      for (size_t i = 0; i < line.size(); ++i) {
        line[i] = line[i] - mx::array(0.5f) * slope[i];
      }
      mx::eval(line);
    }
    const float after = loss(line).item<float>();
    const float a = line[0].item<float>(), b = line[1].item<float>();
    std::cout << "loss " << before << " -> " << after << ", y = " << a
              << " x + " << b << '\n';
    return std::abs(a - 3) < 0.05f && std::abs(b + 1) < 0.05f ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
