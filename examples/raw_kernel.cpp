// SPDX-License-Identifier: MIT
// A raw kernel with threadgroup memory: columns of a matrix summed by tiles,
// the same text on Metal, CUDA and the CPU.
#include <iostream>

#include "zmlx/zmlx.h"

namespace mx = mlx::core;

int main() {
  const zmlx::Kernel column_sums(
      {.name = "column_sums", .inputs = {"x"}, .body = R"(
    // 32 columns and 8 rows a threadgroup; threads of one column meet in tile.
    threadgroup float tile[8][32];
    uint rows = x_shape[0], columns = x_shape[1];
    uint column = thread_position_in_grid.x;
    uint2 at = thread_position_in_threadgroup.xy;
    float total = 0;
    if (column < columns) {
      for (uint row = at.y; row < rows; row += 8) {
        total += float(x[row * columns + column]);
      }
    }
    tile[at.y][at.x] = total;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (at.y == 0 && column < columns) {
      for (uint i = 1; i < 8; ++i) {
        total += tile[i][at.x];
      }
      out[column] = total;
    }
)"},
      {.grid =
           [](const std::vector<mx::array>& in) {
             return zmlx::KernelSize{(in[0].shape(1) + 31) / 32 * 32, 8};
           },
       .threadgroup = zmlx::KernelSize{32, 8},
       .output_shapes =
           [](const std::vector<mx::array>& in) {
             return std::vector<mx::Shape>{{in[0].shape(1)}};
           },
       .output_dtypes = std::vector<mx::Dtype>{mx::float32}});

  const auto x = mx::random::normal({300, 1000});
  const auto sums = column_sums({x})[0];
  const bool good = mx::allclose(sums, mx::sum(x, 0), 1e-4, 1e-4).item<bool>();
  std::cout << "column sums of a 300 x 1000 matrix agree with MLX: "
            << (good ? "yes" : "no") << '\n';
  return good ? 0 : 1;
}
