// SPDX-License-Identifier: MIT
// Raw kernels on the CPU: values against plain C++ in double or MLX's own
// operations, launch geometry, transformations and errors.
#include "zmlx/authoring/kernel.h"

#include "zmlx/authoring/kernel_test_tools.h"
#include "zmlx/base/error.h"

namespace zmlx {
namespace {

const std::vector<mx::Dtype> kFloats = {mx::float32, mx::float16, mx::bfloat16};

// exp as in MLX's documentation.
Kernel exp_kernel() {
  return Kernel(
      {.name = "myexp",
       .inputs = {"inp"},
       .body = "uint elem = thread_position_in_grid.x;\n"
               "T tmp = inp[elem];\n"
               "out[elem] = metal::exp(tmp);\n"},
      {.templates = FromInputs<std::vector<KernelTemplateArgument>>(
           [](const Arrays& in) {
             return std::vector<KernelTemplateArgument>{{"T", in[0].dtype()}};
           })});
}

TEST(Kernel, RunsTheExampleOfMlxsDocumentation) {
  for (const auto dtype : kFloats) {
    for (const int count : {1, 7, 64, 5000}) {
      const auto x = mx::astype(ramp(count), dtype);
      std::vector<float> want;
      for (const float v : values(x)) {
        want.push_back(std::exp(static_cast<double>(v)));
      }
      const auto out = exp_kernel()({x})[0];
      EXPECT_EQ(out.dtype(), dtype);
      expect_near(
          out,
          want,
          dtype == mx::float32       ? 1e-6f
              : dtype == mx::float16 ? 1e-3f
                                     : 8e-3f);
    }
  }
}

TEST(Kernel, ReadsAndWritesVectorsThroughCasts) {
  const Kernel twice(
      {.name = "twice_by_four",
       .inputs = {"x"},
       .outputs = {"out"},
       .body = "uint i = thread_position_in_grid.x;\n"
               "((device float4*)out)[i] = 2 * ((const device float4*)x)[i];"},
      {.grid = KernelSize{256}});
  const auto x = ramp(1024);
  std::vector<float> want;
  for (const float v : values(x)) {
    want.push_back(2 * v);
  }
  expect_near(twice({x})[0], want, 0);
}

TEST(Kernel, CopiesStridedInputsUnlessTold) {
  const auto x = mx::transpose(mx::reshape(ramp(6 * 5), {6, 5}));
  const auto want = values(mx::exp(x));
  expect_near(exp_kernel()({x})[0], want, 1e-6f);
  const Kernel strided(
      {.name = "strided_exp",
       .inputs = {"inp"},
       .body = "uint elem = thread_position_in_grid.x;\n"
               "uint loc = elem_to_loc(elem, inp_shape, inp_strides, "
               "inp_ndim);\n"
               "out[elem] = metal::exp(inp[loc]);\n",
       .ensure_row_contiguous = false});
  expect_near(strided({x})[0], want, 1e-6f);
  const auto view = mx::slice(ramp(40), {1}, {40}, {3}); // not aligned either
  expect_near(strided({view})[0], values(mx::exp(view)), 1e-6f);
}

TEST(Kernel, TakesEmptyInputsAndScalars) {
  const auto empty = exp_kernel()({mx::zeros({0, 3})})[0];
  EXPECT_EQ(empty.shape(), (mx::Shape{0, 3}));
  const Kernel scale(
      {.name = "scale",
       .inputs = {"x", "factor"},
       .body = "uint i = thread_position_in_grid.x; out[i] = x[i] * factor;"});
  expect_near(
      scale({ramp(5), mx::array(2.0f)})[0],
      values(mx::multiply(ramp(5), mx::array(2.0f))),
      0);
}

// One threadgroup a row: simd_sum, threadgroup memory, a barrier.
const char* kRowSum = R"(
  threadgroup float partial[32];
  uint lane = thread_index_in_simdgroup;
  uint row = threadgroup_position_in_grid.x;
  uint size = threads_per_threadgroup.x;
  float total = 0;
  for (uint i = thread_position_in_threadgroup.x; i < uint(x_shape[1]); i += size) {
    total += float(x[row * uint(x_shape[1]) + i]);
  }
  total = simd_sum(total);
  if (lane == 0) {
    partial[simdgroup_index_in_threadgroup] = total;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (simdgroup_index_in_threadgroup == 0) {
    total = simd_sum(lane < simdgroups_per_threadgroup ? partial[lane] : 0.0f);
    if (lane == 0) {
      out[row] = total;
    }
  }
)";

TEST(Kernel, SumsRowsInGroupsOfAnySize) {
  const Kernel sum({.name = "row_sum", .inputs = {"x"}, .body = kRowSum});
  for (const int group : {1, 3, 32, 33, 100, 256, 1000, 1024}) {
    const auto x = mx::reshape(ramp(5 * 777), {5, 777});
    const auto out =
        sum({x},
            {.grid = KernelSize{5 * group},
             .threadgroup = KernelSize{group},
             .output_shapes = std::vector<mx::Shape>{{5}},
             .output_dtypes = std::vector<mx::Dtype>{mx::float32}})[0];
    std::vector<float> want(5);
    const auto v = values(x);
    for (int row = 0; row < 5; ++row) {
      double total = 0;
      for (int i = 0; i < 777; ++i) {
        total += v[row * 777 + i];
      }
      want[row] = static_cast<float>(total);
    }
    expect_near(out, want, 1e-5f);
  }
}

TEST(Kernel, UsesTheTeamForManyGroups) {
  const Kernel sum({.name = "row_sum", .inputs = {"x"}, .body = kRowSum});
  const auto x = mx::reshape(ramp(300 * 64), {300, 64});
  const auto run = [&] {
    return sum(
        {x},
        {.grid = KernelSize{300 * 64},
         .threadgroup = KernelSize{64},
         .output_shapes = std::vector<mx::Shape>{{300}}})[0];
  };
  expect_near(run(), values(mx::sum(x, 1)), 1e-5f);
  EXPECT_EQ(values(run()), values(run()));
}

TEST(Kernel, GivesEveryAttributeItsMeaning) {
  const Kernel ids(
      {.name = "ids", .inputs = {"x"}, .body = R"(
    uint3 p = thread_position_in_grid, n = threads_per_grid;
    uint at = (p.z * n.y + p.y) * n.x + p.x;
    uint3 t = thread_position_in_threadgroup, g = threadgroup_position_in_grid;
    uint3 size = threads_per_threadgroup, full = dispatch_threads_per_threadgroup;
    bool good = all(g * full + t == p) && all(t < size) &&
        all(threadgroups_per_grid == (n + full - 1u) / full) &&
        thread_index_in_threadgroup == t.x + size.x * (t.y + size.y * t.z) &&
        thread_index_in_simdgroup == thread_index_in_threadgroup % 32 &&
        simdgroup_index_in_threadgroup == thread_index_in_threadgroup / 32 &&
        thread_index_in_quadgroup == thread_index_in_threadgroup % 4 &&
        quadgroup_index_in_threadgroup == thread_index_in_threadgroup / 4 &&
        simdgroups_per_threadgroup == (size.x * size.y * size.z + 31) / 32 &&
        dispatch_simdgroups_per_threadgroup == 1 &&
        quadgroups_per_threadgroup == (size.x * size.y * size.z + 3) / 4 &&
        dispatch_quadgroups_per_threadgroup == 6 &&
        threads_per_simdgroup == 32 && thread_execution_width == 32 &&
        all(grid_size == n) && all(grid_origin == uint3(0));
    out[at] += good ? at : -1000.0f;
)"},
      {.grid = KernelSize{8, 6, 3},
       .threadgroup = KernelSize{4, 3, 2},
       .output_shapes = std::vector<mx::Shape>{{8 * 6 * 3}},
       .init_value = 1.0f});
  std::vector<float> want;
  for (int i = 0; i < 8 * 6 * 3; ++i) {
    want.push_back(i + 1.0f);
  }
  expect_near(ids({mx::array(0.0f)})[0], want, 0);
}

TEST(Kernel, AddsAtomically) {
  const Kernel histogram(
      {.name = "histogram",
       .inputs = {"x"},
       .body = "uint i = thread_position_in_grid.x;\n"
               "atomic_fetch_add_explicit(&out[x[i] % 5u], 1u, "
               "memory_order_relaxed);",
       .atomic_outputs = true},
      {.grid = KernelSize{10000},
       .output_shapes = std::vector<mx::Shape>{{5}},
       .init_value = 3.0f});
  const auto x = mx::arange(0, 10000, mx::uint32);
  expect_near(histogram({x})[0], std::vector<float>(5, 2003), 0);
}

TEST(Kernel, PassesTemplateArguments) {
  const Kernel k(
      {.name = "templated",
       .inputs = {"x"},
       .outputs = {"out", "count"},
       .body = "uint i = thread_position_in_grid.x;\n"
               "T v = T(x[i]);\n"
               "if constexpr (FLIP) v = -v;\n"
               "out[i] = v * T(N);\n"
               "count[i] = int(sizeof(T));"},
      {.output_shapes = std::vector<mx::Shape>{{4}, {4}},
       .output_dtypes = std::vector<mx::Dtype>{mx::float16, mx::int32}});
  const auto x = mx::array({1.0f, 2.0f, 3.0f, 4.0f});
  for (const bool flip : {false, true}) {
    const auto out =
        k({x},
          {.templates = std::vector<KernelTemplateArgument>{
               {"T", mx::float16}, {"N", 3}, {"FLIP", flip}}});
    const float s = flip ? -3 : 3;
    expect_near(out[0], {s, 2 * s, 3 * s, 4 * s}, 0);
    expect_near(out[1], {2, 2, 2, 2}, 0);
  }
}

TEST(Kernel, DifferentiatesThroughCustomVjp) {
  const auto k = exp_kernel().custom_vjp(
      [](const Arrays&, const Arrays& g, const Arrays& y) {
        return Arrays{mx::multiply(g[0], y[0])};
      });
  const auto loss = [&](const mx::array& x) {
    return mx::sum(mx::multiply(k({x})[0], mx::array(2.0f)));
  };
  const auto x = ramp(9);
  expect_near(
      mx::grad(loss)(x),
      values(mx::multiply(mx::exp(x), mx::array(2.0f))),
      1e-6f);
  const auto slope = [&](const mx::array& v) {
    return mx::sum(mx::grad(loss)(v));
  };
  expect_near(
      mx::grad(slope)(x),
      values(mx::multiply(mx::exp(x), mx::array(2.0f))),
      1e-6f);
}

TEST(Kernel, WorksUnderCompileAndVmap) {
  const auto k = exp_kernel();
  const auto compiled = mx::compile([&](const Arrays& in) {
    return Arrays{mx::add(k({mx::add(in[0], in[0])})[0], in[0])};
  });
  const auto x = mx::reshape(ramp(12), {3, 4});
  expect_near(
      compiled({x})[0], values(mx::add(mx::exp(mx::add(x, x)), x)), 1e-6f);
  const auto one = [&](const mx::array& v) { return k({v})[0]; };
  expect_near(mx::vmap(one)(x), values(mx::exp(x)), 1e-6f);
  expect_near(mx::vmap(one, 1)(x), values(mx::transpose(mx::exp(x))), 1e-6f);
  EXPECT_EQ(mx::vmap(one)(mx::zeros({0, 4})).shape(), (mx::Shape{0, 4}));
}

TEST(Kernel, ReportsTheLineThatDoesNotCompile) {
  const auto compile = [](std::string header, std::string body) {
    const Kernel k(
        {.name = "broken",
         .inputs = {"x"},
         .body = std::move(body),
         .header = std::move(header)});
    return message_of([&] { k({mx::array({1.0f})}); });
  };
  const auto body =
      compile("", "uint i = 0;\n/* two\nlines */\nout[i] = nothing(x[i]);");
  EXPECT_NE(
      body.find("[kernel broken] CPU compile failed at body:4: "),
      std::string::npos)
      << body;
  EXPECT_NE(body.find("nothing"), std::string::npos) << body;
  EXPECT_NE(body.find("Source kept at "), std::string::npos) << body;
  const auto header =
      compile("#include <metal_stdlib>\n\ninline int f() { return g; }", "");
  EXPECT_NE(header.find("at header:3: "), std::string::npos) << header;
  const auto inside = compile("", "\nout[0] = simd_sum(x);");
  EXPECT_NE(inside.find("at body:2: "), std::string::npos) << inside;
  EXPECT_THROW(
      Kernel({.name = "b", .inputs = {"x"}, .body = "out[0] = bad;"})(
          {mx::array({1.0f})}),
      CompileError);
}

TEST(Kernel, RejectsWhatCannotBeLaunched) {
  const auto k = exp_kernel();
  const auto x = ramp(4);
  const auto says = [&](const std::function<void()>& action,
                        const std::string& want) {
    EXPECT_THROW(action(), std::invalid_argument) << want;
    EXPECT_EQ(message_of(action), want);
  };
  says([&] { k({x, x}); }, "[kernel myexp] inputs must be 1 arrays, got 2.");
  says(
      [&] { k({x}, {.grid = KernelSize{0}}); },
      "[kernel myexp] grid must have at least one thread along each axis, got "
      "(0, 1, 1).");
  says(
      [&] { k({x}, {.threadgroup = KernelSize{32, 33}}); },
      "[kernel myexp] threadgroup must have at most 1024 threads, got (32, 33, "
      "1) = 1056.");
  says(
      [&] { k({x}, {.threadgroup = KernelSize{1, 0}}); },
      "[kernel myexp] threadgroup must have at least one thread along each "
      "axis, got (1, 0, 1).");
  says(
      [&] { k({x}, {.output_shapes = std::vector<mx::Shape>{}}); },
      "[kernel myexp] output_shapes must have one entry for each of 1 outputs, "
      "got 0.");
  says(
      [&] { k({mx::astype(x, mx::float64, mx::Device::cpu)}); },
      "[kernel myexp] arrays must have a dtype that Metal has, got float64.");
  says(
      [&] { Kernel({.name = "two words"}); },
      "[kernel] name must be an identifier that does not start with zm_, got "
      "'two words'.");
  says(
      [&] { Kernel({.name = "k", .inputs = {"a", "a"}}); },
      "[kernel k] names of arrays must differ, got 'a' twice.");
  says(
      [&] { Kernel({.name = "k", .inputs = {"a"}, .body = "/* open"}); },
      "[kernel k body] line 1: a comment must end with */.");
  says(
      [&] {
        mx::grad([&](const mx::array& v) { return mx::sum(k({v})[0]); })(x);
      },
      "[kernel myexp] a gradient must be given through custom_vjp, got none.");
}

} // namespace
} // namespace zmlx
