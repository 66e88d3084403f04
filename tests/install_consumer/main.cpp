// SPDX-License-Identifier: MIT
// Uses the installed library from outside: headers, linking, one computation.
#include <iostream>

#include <zmlx/zmlx.h>

int main() {
  namespace mx = mlx::core;
  const mx::array x({3.0f, 4.0f}, {1, 2});
  const mx::array weight({1.0f, 10.0f}, {2});
  mx::array y = zmlx::norms::rms_norm(x, weight, 0.0f);
  mx::eval(y);
  std::cout << "zmlx " << ZMLX_VERSION << ": " << y.data<float>()[0] << ' '
            << y.data<float>()[1] << '\n';
}
