// SPDX-License-Identifier: MIT
// Whole programs in the Metal dialect: helpers, tables, structs, and patterns
// of kernels in the wild.

#include "zmlx/authoring/kernel_test_tools.h"

namespace zmlx {
namespace {

TEST(KernelDialect, TakesHelpersTablesAndStructs) {
  const auto out = run_body(
      "helpers",
      R"(
    threadgroup float tile[4][5];
    threadgroup float line[8], total;
    threadgroup atomic_uint counter;
    uint i = thread_index_in_threadgroup;
    if (i == 0) { total = 0.5f; atomic_store_explicit(&counter, 0u, memory_order_relaxed); }
    tile[i / 4][i % 4] = table[i % 3] * scale;
    if (i < 8) line[i] = float(i);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    atomic_fetch_add_explicit(&counter, i, memory_order_relaxed);
    float sum = add_up<float, 4>(tile[i % 4]) + add_up<float, 4>(&line[4]);
    Pair pair = {sum, int(i)};
    pair.xy = pair.twice();
    threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
    if (i == 1) total += 1;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    device float* mine = out + i;
    *mine = pair.xy + total;
    const device float* from = a + i;
    mine[16] = *from++ + from[0];
    if (i == 0) out[32] = atomic_load_explicit(&counter, memory_order_relaxed);
)",
      {mx::arange(0, 17, mx::float32)},
      16,
      33,
      R"(#include <metal_stdlib>
#include <metal_simdgroup>
using namespace metal;
constant float table[3] = {1.0f, 2.0f, 3.0f};
constant constexpr float scale = 10.0f;
struct Pair {
  float first; int index; float xy;
  float twice() const thread { return 2 * first + index; }
};
template <typename T, int N>
METAL_FUNC T add_up(threadgroup const T* x) {
  T r = 0;
  #pragma unroll
  for (int i = 0; i < N; ++i) { r += x[i]; }
  return r;
})");
  std::vector<float> want(33);
  for (int i = 0; i < 16; ++i) {
    float sum = 4 + 5 + 6 + 7;
    for (int k = 0; k < 4; ++k) {
      sum += 10.0f * static_cast<float>((i % 4 * 4 + k) % 3 + 1);
    }
    want[i] = 2 * sum + i + 1.5f;
    want[16 + i] = 2 * i + 1;
  }
  want[32] = 120;
  expect_near(out, want, 1e-6f);
}

// Patterns of kernels in the wild.
TEST(KernelDialect, RunsATreeReductionAndATiledTranspose) {
  const Kernel softmax(
      {.name = "row_softmax", .inputs = {"inp"}, .body = R"(
    constexpr uint TG = 64; constexpr uint D = 100;
    threadgroup float buf[TG];
    uint gid = thread_position_in_grid.x, tid = thread_position_in_threadgroup.x;
    uint row = gid / TG, base = row * D;
    float m = -INFINITY;
    for (uint j = tid; j < D; j += TG) m = metal::max(m, (float)inp[base + j]);
    buf[tid] = m;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint stride = TG / 2; stride > 0; stride >>= 1) {
      if (tid < stride) buf[tid] = metal::max(buf[tid], buf[tid + stride]);
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    m = buf[0];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float s = 0;
    for (uint j = tid; j < D; j += TG) s += metal::exp((float)inp[base + j] - m);
    buf[tid] = s;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint stride = TG / 2; stride > 0; stride >>= 1) {
      if (tid < stride) buf[tid] += buf[tid + stride];
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    s = buf[0];
    for (uint j = tid; j < D; j += TG)
      out[base + j] = (T)(metal::exp((float)inp[base + j] - m) / s);
)"},
      {.grid = KernelSize{9 * 64},
       .threadgroup = KernelSize{64},
       .templates = FromInputs<std::vector<KernelTemplateArgument>>(
           [](const Arrays& in) {
             return std::vector<KernelTemplateArgument>{{"T", in[0].dtype()}};
           })});
  for (const auto dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    const auto x = mx::astype(mx::reshape(ramp(900), {9, 100}), dtype);
    expect_near(
        softmax({x})[0],
        values(mx::softmax(mx::astype(x, mx::float32), -1)),
        dtype == mx::float32 ? 1e-6f : 4e-3f);
  }
  const Kernel transpose(
      {.name = "transpose", .inputs = {"x"}, .body = R"(
    threadgroup float tile[16][17];
    uint2 size = uint2(x_shape[1], x_shape[0]);
    uint2 t = thread_position_in_threadgroup.xy;
    uint2 g = threadgroup_position_in_grid.xy * 16;
    if (all(g + t < size)) tile[t.y][t.x] = x[(g.y + t.y) * size.x + g.x + t.x];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (all(g.yx + t < size.yx))
      out[(g.x + t.y) * size.y + g.y + t.x] = tile[t.x][t.y];
)"},
      {.grid = KernelSize{48, 32},
       .threadgroup = KernelSize{16, 16},
       .output_shapes = std::vector<mx::Shape>{{40, 20}}});
  const auto x = mx::reshape(ramp(800), {20, 40});
  expect_near(transpose({x})[0], values(mx::transpose(x)), 0);
}

TEST(KernelDialect, ReadsFourBitWeightsAndComplexNumbers) {
  const auto packed =
      mx::array({0x76543210u, 0xfedcba98u, 0x13579bdfu}, mx::uint32);
  std::vector<float> want;
  for (const uint32_t word : {0x76543210u, 0xfedcba98u, 0x13579bdfu}) {
    for (int k = 0; k < 8; ++k) {
      want.push_back((static_cast<float>(word >> 4 * k & 15) - 8) * 0.5f);
    }
  }
  expect_near(
      run_body(
          "unpack",
          "uint i = thread_position_in_grid.x;\n"
          "const device uint8_t* bytes = (const device uint8_t*)a;\n"
          "uint8_t both = bytes[i / 2];\n"
          "out[i] = (float((i & 1) ? both >> 4 : both & 0x0f) - 8.0f) * 0.5f;",
          {packed},
          24,
          24),
      want,
      0);
  const auto z = mx::add(
      mx::astype(mx::array({1.0f, -2.0f}), mx::complex64),
      mx::multiply(mx::array({0.5f, 3.0f}), mx::array(mx::complex64_t(0, 1))));
  const Kernel square(
      {.name = "square",
       .inputs = {"z"},
       .body = "uint i = thread_position_in_grid.x; out[i] = z[i] * z[i];"});
  EXPECT_TRUE(mx::allclose(square({z})[0], mx::multiply(z, z)).item<bool>());
}

} // namespace
} // namespace zmlx
