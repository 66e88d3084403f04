// SPDX-License-Identifier: MIT
// The words of the Metal dialect: each against plain C++, on whatever device is
// the default.
#include <algorithm>
#include <bit>
#include <limits>
#include <random>

#include "zmlx/authoring/kernel_test_tools.h"

namespace zmlx {
namespace {

using Wide = double (*)(double);

TEST(KernelDialect, BuildsAndSwizzlesVectors) {
  const auto out = run_body(
      "vectors",
      R"(
    float4 v = float4(a[0], a[1], a[2], a[3]); // 1 2 3 4
    int at = 0;
    #define PUT4(e) { float4 t = (e); out[at++] = t.x; out[at++] = t.y; \
                      out[at++] = t.z; out[at++] = t.w; }
    PUT4(v.wzyx)
    PUT4(float4(v.xy, v.zw * 2.0f))
    PUT4(float4(v.xyz, 9))
    PUT4(float4(v.bgr, v.a))
    float4 w = v;
    w.xz = v.yw;
    w.yw += float2(10, 20);
    PUT4(w)
    w = v * 2.0f - float4(1);
    w /= 2;
    PUT4(w)
    PUT4(select(v, -v, v > float4(2.5f)))
    PUT4(float4(int4(7, -7, 9, 1) % 4))
    PUT4(float4(uint4(1, 2, 3, 4) << 2))
    PUT4(float4(uchar4(as_type<uchar4>(0x04030201u))))
    PUT4(fma(v, v, float4(1)))
    PUT4(clamp(v, 1.5f, 3.5f))
    PUT4(max(v, float4(2)))
    PUT4(mix(v, float4(0), 0.25f))
    packed_float3 p = ((const device packed_float3*)a)[1]; // 4 5 6
    float3 q = p;
    PUT4(float4(q, p[2]))
    float3 c = cross(float3(1, 0, 0), float3(0, 1, 0));
    PUT4(float4(c, dot(v, v)))
    PUT4(float4(length(float2(3, 4)), distance(float2(1), float2(4, 5)),
        normalize(float2(0, 2)).y, length_squared(float3(1, 2, 3))))
    bool4 b = v > float4(3);
    PUT4(float4(any(b), all(b), all(v > float4(0)), float4x(b)))
    half4 h = half4(v) * half(0.5h);
    PUT4(float4(h))
    vec<float, 2> u = {v[1], v[2]};
    u[0] = 7;
    PUT4(float4(u, as_type<float>(as_type<uint>(v.x)), float(sizeof(float3))))
)",
      {mx::arange(1, 9, mx::float32)},
      1,
      80,
      "inline float float4x(bool4 b) { return float(b.w); }");
  expect_near(
      out,
      {4, 3,  2,  1,  1,    2,    6,     8,   1,  2, 3,   9,  3,   2,  1, 4,
       2, 12, 4,  24, 0.5,  1.5,  2.5,   3.5, 1,  2, -3,  -4, 3,   -3, 1, 1,
       4, 8,  12, 16, 1,    2,    3,     4,   2,  5, 10,  17, 1.5, 2,  3, 3.5,
       2, 2,  3,  4,  .75f, 1.5f, 2.25f, 3,   4,  5, 6,   6,  0,   0,  1, 30,
       5, 5,  1,  14, 1,    0,    1,     1,   .5, 1, 1.5, 2,  7,   3,  1, 16},
      1e-6f);
}

// Sizes and signs from tiny to huge, and the special ones.
std::vector<float> samples(double low, double high) {
  std::vector<float> result;
  for (int i = 0; i <= 200; ++i) {
    result.push_back(static_cast<float>(low + (high - low) * i / 200));
  }
  return result;
}

TEST(KernelDialect, ComputesFunctionsOfFloats) {
  struct Function {
    const char* name;
    Wide wide;
    double low, high;
  };
  const std::vector<Function> functions = {
      {"exp", std::exp, -80, 80},
      {"exp2", std::exp2, -100, 100},
      {"exp10", [](double x) { return std::pow(10, x); }, -30, 30},
      {"log", std::log, 1e-3, 1e4},
      {"log2", std::log2, 1e-3, 1e4},
      {"log10", std::log10, 1e-3, 1e4},
      {"log1p", std::log1p, -0.9, 10},
      {"sin", std::sin, -20, 20},
      {"cos", std::cos, -20, 20},
      {"tan", std::tan, -1.4, 1.4},
      {"asin", std::asin, -1, 1},
      {"acos", std::acos, -1, 1},
      {"atan", std::atan, -20, 20},
      {"sinh", std::sinh, -10, 10},
      {"cosh", std::cosh, -10, 10},
      {"tanh", std::tanh, -10, 10},
      {"asinh", std::asinh, -10, 10},
      {"acosh", std::acosh, 1, 20},
      {"atanh", std::atanh, -0.95, 0.95},
      {"sqrt", std::sqrt, 0, 100},
      {"rsqrt", [](double x) { return 1 / std::sqrt(x); }, 0.01, 100},
      {"floor", std::floor, -5, 5},
      {"ceil", std::ceil, -5, 5},
      {"round", std::round, -5, 5},
      {"rint", std::rint, -5, 5},
      {"trunc", std::trunc, -5, 5},
      {"fabs", std::fabs, -5, 5},
      {"fract", [](double x) { return x - std::floor(x); }, -5, 5},
      {"sign", [](double x) { return double(x > 0) - double(x < 0); }, -5, 5},
      {"saturate", [](double x) { return std::clamp(x, 0.0, 1.0); }, -2, 2},
      {"sinpi", [](double x) { return std::sin(M_PI * x); }, -3, 3},
      {"cospi", [](double x) { return std::cos(M_PI * x); }, -3, 3},
      {"precise::exp", std::exp, -80, 80},
      {"metal::precise::sqrt", std::sqrt, 0, 100},
      {"fast::exp", std::exp, -10, 10},
      {"metal::fast::log", std::log, 0.5, 10},
  };
  std::string body = "uint i = thread_position_in_threadgroup.x;\n";
  Arrays columns;
  std::vector<float> want;
  for (size_t f = 0; f < functions.size(); ++f) {
    body += "out[" + std::to_string(f) + " * 201 + i] = " + functions[f].name +
        "(a[" + std::to_string(f) + " * 201 + i]);\n";
    const auto x = samples(functions[f].low, functions[f].high);
    columns.push_back(mx::array(x.data(), {201}));
    for (const float v : x) {
      want.push_back(static_cast<float>(functions[f].wide(v)));
    }
  }
  const int size = static_cast<int>(want.size());
  expect_near(
      run_body("functions", body, {mx::concatenate(columns)}, 201, size),
      want,
      4e-6f);
}

TEST(KernelDialect, KnowsNanInfinityAndLimits) {
  const auto out = run_body(
      "specials",
      R"(
    float nan = a[0], inf = a[1];
    int at = 0;
    out[at++] = isnan(nan) && !isnan(inf) && !isnan(1.0f);
    out[at++] = isinf(inf) && isinf(-inf) && !isinf(nan);
    out[at++] = isfinite(1.0f) && !isfinite(inf) && !isfinite(nan);
    out[at++] = max(nan, 2.0f); out[at++] = max(2.0f, nan);
    out[at++] = min(nan, 2.0f); out[at++] = fmin(2.0f, nan);
    out[at++] = INFINITY; out[at++] = -HUGE_VALF; out[at++] = NAN;
    out[at++] = numeric_limits<float>::max() == FLT_MAX;
    out[at++] = metal::numeric_limits<int>::min() == -2147483647 - 1;
    out[at++] = float(Limits<half>::finite_max);
    out[at++] = Limits<float>::min;
    out[at++] = float(Limits<bfloat16_t>::max);
    out[at++] = numeric_limits<uchar>::max();
    out[at++] = signbit(-0.0f);
    out[at++] = copysign(3.0f, -0.0f);
    out[at++] = exp(-inf); out[at++] = log(0.0f); out[at++] = log(-1.0f);
    out[at++] = pow(2.0f, 0.5f); out[at++] = atan2(1.0f, -1.0f);
    out[at++] = fmod(-7.5f, 2.0f); out[at++] = fdim(3.0f, 1.0f);
    out[at++] = step(1.0f, 2.0f); out[at++] = smoothstep(0.0f, 1.0f, 0.25f);
    out[at++] = median3(3.0f, 1.0f, 2.0f); out[at++] = max3(1.0f, 5.0f, 2.0f);
    out[at++] = mad(2.0f, 3.0f, 4.0f); out[at++] = M_PI_F;
    out[at++] = is_same_v<decltype(half(1) * 1.0f), float>;
    out[at++] = is_same_v<decltype(half(1) * half(2)), half>;
    out[at++] = is_same_v<decltype(2 * half(2)), half>;
)",
      {mx::array({NAN, INFINITY})},
      1,
      34);
  expect_near(
      out,
      {1,
       1,
       1,
       2,
       2,
       2,
       2,
       INFINITY,
       -INFINITY,
       NAN,
       1,
       1,
       65504,
       -INFINITY,
       INFINITY,
       255,
       1,
       -3,
       0,
       -INFINITY,
       NAN,
       std::sqrt(2.0f),
       static_cast<float>(0.75 * M_PI),
       -1.5,
       2,
       1,
       0.15625f,
       2,
       5,
       10,
       static_cast<float>(M_PI),
       1,
       1,
       1},
      1e-6f);
}

TEST(KernelDialect, RoundsHalfAndBfloatAsIeee) {
  std::mt19937 random(1);
  std::vector<uint32_t> bits(20000);
  for (auto& b : bits) {
    b = random();
  }
  for (uint32_t i = 0; i < 4000; ++i) { // around the steps of half
    bits[i] = 0x38000000 + i * 0x1000 + i % 3 - 1;
    bits[4000 + i] = 0x33000000 + i * 0x1800; // and its subnormals
  }
  const auto raw = mx::array(bits.data(), {20000}, mx::uint32);
  const auto x = mx::view(raw, mx::float32);
  for (const auto dtype : {mx::float16, mx::bfloat16}) {
    const Kernel convert(
        {.name = "convert",
         .inputs = {"x"},
         .outputs = {"out", "back"},
         .body = "uint i = thread_position_in_grid.x; out[i] = T(x[i]);\n"
                 "back[i] = float(out[i]);"},
        {.output_shapes = std::vector<mx::Shape>{{20000}, {20000}},
         .output_dtypes = std::vector<mx::Dtype>{dtype, mx::float32},
         .templates = std::vector<KernelTemplateArgument>{{"T", dtype}}});
    const auto got = convert({x});
    const auto want = mx::astype(x, dtype);
    const auto same = mx::logical_or(
        mx::equal(mx::view(got[0], mx::uint16), mx::view(want, mx::uint16)),
        mx::logical_and(mx::isnan(got[0]), mx::isnan(want)));
    EXPECT_TRUE(mx::all(same).item<bool>());
    EXPECT_TRUE(
        mx::array_equal(got[1], mx::astype(want, mx::float32), true)
            .item<bool>());
    const Kernel arithmetic(
        {.name = "arithmetic",
         .inputs = {"x"},
         .body = "uint i = thread_position_in_grid.x; T u = x[i];\n"
                 "T v = x[(i + 1) % 20000];\n"
                 "out[i] = u * v + u / v - v;\n"
                 "T w = u; w += v; w *= T(0.5f); out[i] = out[i] + (-w);"});
    const auto u = mx::astype(ramp(20000), dtype);
    const auto v =
        mx::concatenate({mx::slice(u, {1}, {20000}), mx::slice(u, {0}, {1})});
    const auto h = mx::array(0.5f, dtype);
    expect_near(
        arithmetic(
            {u},
            {.templates =
                 std::vector<KernelTemplateArgument>{{"T", dtype}}})[0],
        values(
            mx::subtract(
                mx::subtract(mx::add(mx::multiply(u, v), mx::divide(u, v)), v),
                mx::multiply(mx::add(u, v), h))),
        0);
  }
}

TEST(KernelDialect, ComputesOnIntegers) {
  const auto out = run_body(
      "integers",
      R"(
    int at = 0;
    out[at++] = popcount(0xf0f0u); out[at++] = clz(1u); out[at++] = ctz(8u);
    out[at++] = clz(uchar(1)); out[at++] = ctz(0u);
    out[at++] = reverse_bits(1u) == 0x80000000u;
    out[at++] = rotate(0x80000001u, 1u);
    out[at++] = mulhi(0x80000000u, 6u); out[at++] = mulhi(-1, 5);
    out[at++] = mulhi(1ul << 63, 6ul);
    out[at++] = absdiff(3u, 10u); out[at++] = addsat(uchar(250), uchar(10));
    out[at++] = subsat(3u, 5u); out[at++] = addsat(int8_t(-100), int8_t(-100));
    out[at++] = extract_bits(0xabcdu, 4, 8);
    out[at++] = insert_bits(0u, 0xfu, 4, 4);
    out[at++] = clamp(12, -3, 5); out[at++] = min(uint(a[0]), 5u);
    out[at++] = abs(-7); out[at++] = min3(4, 2, 9);
    out[at++] = float(as_type<int>(0xffffffffu));
    uint s = 12345u; s = s * 1664525u + 1013904223u;
    out[at++] = float(s & 0xffffffu);
    ushort u = ushort(70000); out[at++] = u;
    out[at++] = ceildiv(10, 4); out[at++] = select(1, 2, true);
    out[at++] = (int)sizeof(long); out[at++] = 7 / 2 * 2 + 7 % 2;
    long big = long(1) << 40; out[at++] = float(big >> 38);
)",
      {mx::array({7.0f})},
      1,
      28);
  expect_near(
      out,
      {8,
       31,
       3,
       7,
       32,
       1,
       3,
       3,
       -1,
       3,
       7,
       255,
       0,
       -128,
       0xbc,
       0xf0,
       5,
       5,
       7,
       2,
       -1,
       static_cast<float>((12345u * 1664525u + 1013904223u) & 0xffffffu),
       70000 - 65536,
       3,
       2,
       8,
       7,
       4},
      1e-7f);
}

} // namespace
} // namespace zmlx
