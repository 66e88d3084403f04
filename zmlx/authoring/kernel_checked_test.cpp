// SPDX-License-Identifier: MIT
// The checked mode finds each planted bug, names it, and finds nothing else.
#include "zmlx/authoring/kernel_test_tools.h"

namespace zmlx {
namespace {

KernelSource source(const std::string& body, const std::string& header = "") {
  return {.name = "planted", .inputs = {"x"}, .body = body, .header = header};
}

// What a checked run of 64 threads in groups of 32 says.
std::string finding(
    const std::string& body,
    const std::string& header = "",
    KernelLaunch launch = {.threadgroup = KernelSize{32}}) {
  const auto k = Kernel(source(body, header), std::move(launch)).checked();
  return message_of([&] { k({ramp(64)}); });
}

TEST(KernelChecked, FindsAccessesOutOfBounds) {
  EXPECT_EQ(
      finding("uint i = thread_position_in_grid.x;\nout[i] = x[i + 1];"),
      "[kernel planted] an index of x must be 0 to 63, got 64 in thread (63, "
      "0, 0) at body:2.");
  EXPECT_EQ(
      finding(
          "uint i = thread_position_in_grid.x;\n\nout[i] = x[i];\n"
          "if (i == 3) out[i - 5u + 0] = 1;"),
      "[kernel planted] an index of out must be 0 to 63, got 4294967294 in "
      "thread (3, 0, 0) at body:4.");
  EXPECT_EQ(
      finding(
          "int i = thread_position_in_grid.x;\nout[i] = x[i];\n"
          "device float* p = out + i;\nif (i == 0) p[-1] = 2;"),
      "[kernel planted] an index of out must be 0 to 63, got -1 in thread (0, "
      "0, 0) at body:4.");
  EXPECT_EQ(
      finding(
          "threadgroup float tile[4][8];\n"
          "uint i = thread_position_in_threadgroup.x;\n"
          "tile[i / 8][i % 8] = 0;\n"
          "if (i == 9) tile[1][8] = 1;\n"
          "out[thread_position_in_grid.x] = tile[i / 8][i % 8];"),
      "[kernel planted] an index of tile must be 0 to 7, got 8 in thread (9, "
      "0, 0) at body:4.\n"
      "[kernel planted] an index of tile must be 0 to 7, got 8 in thread (41, "
      "0, 0) at body:4.");
}

TEST(KernelChecked, NamesTheLineOfAHelper) {
  EXPECT_EQ(
      finding(
          "uint i = thread_position_in_grid.x; out[i] = second(x + i);",
          "#include <metal_stdlib>\n"
          "inline float second(const device float* p) {\n"
          "  return p[1];\n}"),
      "[kernel planted] an index of x must be 0 to 63, got 64 in thread (63, "
      "0, 0) at header:3.");
}

TEST(KernelChecked, FindsReadsOfUnwrittenThreadgroupMemory) {
  EXPECT_EQ(
      finding(
          "threadgroup float part[32];\n"
          "uint i = thread_position_in_threadgroup.x;\n"
          "if (i != 5) part[i] = 1;\n"
          "threadgroup_barrier(mem_flags::mem_threadgroup);\n"
          "out[thread_position_in_grid.x] = part[(i + 1) % 32];"),
      "[kernel planted] an element of part must be written before it is read, "
      "got index 5 unwritten in thread (4, 0, 0) at body:5.\n"
      "[kernel planted] an element of part must be written before it is read, "
      "got index 5 unwritten in thread (36, 0, 0) at body:5.");
  EXPECT_NE(
      finding(
          "threadgroup float total;\n"
          "out[thread_position_in_grid.x] = total;")
          .find("an element of total must be written before it is read"),
      std::string::npos);
}

TEST(KernelChecked, FindsDivergentBarriersAndSimdFunctions) {
  EXPECT_NE(
      finding(
          "uint i = thread_position_in_threadgroup.x;\n"
          "out[thread_position_in_grid.x] = 0;\n"
          "if (i < 20)\n"
          "  threadgroup_barrier(mem_flags::mem_threadgroup);")
          .find(
              "[kernel planted] all 32 threads of a threadgroup must reach "
              "the same barrier, got 20 in thread (0, 0, 0) at body:4."),
      std::string::npos);
  EXPECT_NE(
      finding(
          "uint i = thread_position_in_threadgroup.x;\n"
          "float v = x[i];\n"
          "if (i < 20) v = simd_sum(v);\n"
          "simdgroup_barrier(mem_flags::mem_none);\n"
          "out[thread_position_in_grid.x] = v;")
          .find(
              "[kernel planted] all 32 threads of a SIMD-group must reach "
              "the same function, got 20 in thread (0, 0, 0) at body:3."),
      std::string::npos);
}

TEST(KernelChecked, FindsOutputsLeftUnwritten) {
  EXPECT_EQ(
      finding("uint i = thread_position_in_grid.x; if (i != 7) out[i] = x[i];"),
      "[kernel planted] every element of out must be written, got element 7 "
      "unwritten.");
  EXPECT_EQ(
      finding(
          "uint i = thread_position_in_grid.x; out[i] = x[i];",
          "",
          {.grid = KernelSize{60}, .threadgroup = KernelSize{32}}),
      "[kernel planted] every element of out must be written, got element 60 "
      "unwritten.");
}

TEST(KernelChecked, FindsMemoryAndGridsBeyondLimits) {
  EXPECT_NE(
      finding(
          "threadgroup float one[5000]; threadgroup float two[5000];\n"
          "uint i = thread_position_in_threadgroup.x;\n"
          "one[i] = 1; two[i] = 2;\n"
          "out[thread_position_in_grid.x] = one[i] + two[i];")
          .find("threadgroup variables must fit into 32768 bytes, got 40064."),
      std::string::npos);
  EXPECT_EQ(
      finding(
          "out[thread_position_in_grid.y % 64] = 0;",
          "",
          {.grid = KernelSize{1, 70000}, .threadgroup = KernelSize{1, 1}}),
      "[kernel planted] grid must have at most 65535 threadgroups along y and "
      "z, got 70000.");
}

TEST(KernelChecked, FindsVectorsOffTheirAlignment) {
  EXPECT_EQ(
      finding(
          "uint i = thread_position_in_grid.x; out[i] = 0;\n"
          "if (i == 0) out[0] = ((const device float4*)(x + 1))[0].x;"),
      "[kernel planted] an access to x must be aligned to 16 bytes, got byte 4 "
      "in thread (0, 0, 0) at body:2.");
}

TEST(KernelChecked, PassesWhatIsRight) {
  const Kernel sum(
      source(R"(
    threadgroup float part[32], total;
    threadgroup atomic_uint arrived;
    uint i = thread_position_in_threadgroup.x;
    uint lane = thread_index_in_simdgroup, group = simdgroup_index_in_threadgroup;
    if (i == 0) {
      total = 0;
      atomic_store_explicit(&arrived, 0u, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const device float4* wide = reinterpret_cast<const device float4*>(x);
    float4 v = wide[i % 16];
    float s = simd_sum(v.x + v.y);
    if (lane == 0) part[group] = s;
    atomic_fetch_add_explicit(&arrived, 1u, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (group == 0) {
      s = simd_sum(lane < simdgroups_per_threadgroup ? part[lane] : 0.0f);
      if (lane == 0) total += s;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    device float* mine = &out[thread_position_in_grid.x];
    *mine = total + float(atomic_load_explicit(&arrived, memory_order_relaxed));
)"),
      {.threadgroup = KernelSize{64}});
  const auto x = ramp(64);
  const auto want = values(sum.checked(false)({x})[0]);
  expect_near(sum.checked()({x})[0], want, 0);
  set_checked_kernels(true);
  expect_near(sum({x})[0], want, 0);
  set_checked_kernels(false);
}

TEST(KernelChecked, LetsGradientsThrough) {
  const auto k =
      Kernel(source("uint i = thread_position_in_grid.x; out[i] = 3 * x[i];"))
          .custom_vjp([](const Arrays&, const Arrays& g, const Arrays&) {
            return Arrays{mx::multiply(g[0], mx::array(3.0f))};
          })
          .checked();
  const auto slope = mx::grad(
      [&](const mx::array& x) { return mx::sum(k({mx::multiply(x, x)})[0]); });
  expect_near(
      slope(ramp(8)), values(mx::multiply(ramp(8), mx::array(6.0f))), 0);
}

TEST(KernelChecked, SaysWhyItCannotRunInsideCompile) {
  const auto k =
      Kernel(source("out[thread_position_in_grid.x] = 0;")).checked();
  const auto compiled = mx::compile([&](const Arrays& in) { return k(in); });
  EXPECT_EQ(
      message_of([&] { compiled({ramp(4)}); }),
      "[kernel planted] checked mode runs a kernel at once, which is not "
      "possible inside mx::compile or mx::vmap. Try: "
      "set_checked_kernels(false).");
}

} // namespace
} // namespace zmlx
