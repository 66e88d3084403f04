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

// One value for each thread and function, computed by hand for each SIMD-group.
TEST(KernelDialect, MeetsInSimdGroupsOfAnySize) {
  const char* body = R"(
    uint i = thread_position_in_threadgroup.x, n = threads_per_threadgroup.x;
    float v = a[i];
    uint at = 0;
    #define PUT(e) out[at++ * n + i] = float(e);
    PUT(simd_sum(v)) PUT(simd_product(1.0f + v * 0.01f))
    PUT(simd_min(v)) PUT(simd_max(v))
    PUT(simd_and(uint(i | 8u))) PUT(simd_or(uint(i))) PUT(simd_xor(uint(i)))
    PUT(simd_prefix_inclusive_sum(v)) PUT(simd_prefix_exclusive_sum(v))
    PUT(simd_prefix_inclusive_product(1.0f + v * 0.01f))
    PUT(simd_prefix_exclusive_product(1.0f + v * 0.01f))
    PUT(simd_shuffle(v, 3)) PUT(simd_shuffle_xor(v, 1))
    PUT(simd_shuffle_up(v, 2)) PUT(simd_shuffle_down(v, 2))
    PUT(simd_broadcast(v, 2)) PUT(simd_broadcast_first(v))
    PUT(simd_any(v > 3.0f)) PUT(simd_all(v > -3.0f)) PUT(simd_is_first())
    PUT(ulong(simd_ballot(v > 1.0f)) & 0xffff)
    PUT(quad_sum(v)) PUT(quad_broadcast(v, 1)) PUT(quad_shuffle_xor(v, 1))
    PUT(simd_sum(int(i))) PUT(simd_max(float2(v, -v)).y)
    simdgroup_barrier(mem_flags::mem_none);
    PUT(simd_shuffle_and_fill_up(v, 100.0f + v, 2))
    PUT(float(simd_sum(half(v))))
)";
  constexpr int kRows = 28;
  for (const int n : {32, 64, 1, 4, 40, 100}) {
    const auto x = values(ramp(n));
    std::vector<std::vector<double>> rows(kRows, std::vector<double>(n));
    for (int base = 0; base < n; base += 32) {
      const int end = std::min(n, base + 32);
      double sum = 0, product = 1, low = 1e9, high = -1e9, minus = -1e9;
      uint32_t all = ~0u, any = 0, odd = 0, ballot = 0;
      int isum = 0;
      for (int i = base; i < end; ++i) {
        rows[8][i] = sum;
        rows[10][i] = product;
        sum += x[i];
        product *= 1.0f + x[i] * 0.01f;
        rows[7][i] = sum;
        rows[9][i] = product;
        low = std::min<double>(low, x[i]);
        high = std::max<double>(high, x[i]);
        minus = std::max<double>(minus, -x[i]);
        all &= i | 8;
        any |= i;
        odd ^= i;
        isum += i;
        ballot |= (x[i] > 1.0f ? 1u : 0u) << (i - base);
      }
      const auto at = [&](int lane, int own) {
        return lane >= 0 && base + lane < end && lane < 32 ? x[base + lane]
                                                           : x[own];
      };
      for (int i = base; i < end; ++i) {
        const int lane = i - base;
        const double fixed[] = {
            sum, product, low, high, double(all), double(any), double(odd)};
        for (int r = 0; r < 7; ++r) {
          rows[r][i] = fixed[r];
        }
        rows[11][i] = at(3, i);
        rows[12][i] = at(lane ^ 1, i);
        rows[13][i] = at(lane - 2, i);
        rows[14][i] = at(lane + 2, i);
        rows[15][i] = at(2, i);
        rows[16][i] = x[base];
        rows[17][i] = high > 3;
        rows[18][i] = low > -3;
        rows[19][i] = lane == 0;
        rows[20][i] = ballot & 0xffff;
        double quad = 0;
        for (int k = lane / 4 * 4; k < lane / 4 * 4 + 4 && base + k < end;
             ++k) {
          quad += x[base + k];
        }
        rows[21][i] = quad;
        rows[22][i] = at(lane / 4 * 4 + 1, i);
        rows[23][i] = at(lane ^ 1, i);
        rows[24][i] = isum;
        rows[25][i] = minus;
        rows[26][i] = lane >= 2      ? x[i - 2]
            : base + lane + 30 < end ? 100 + x[base + lane + 30]
                                     : 100 + x[i];
        rows[27][i] = sum;
      }
    }
    std::vector<float> want;
    for (const auto& row : rows) {
      want.insert(want.end(), row.begin(), row.end());
    }
    const auto out = run_body("simd", body, {ramp(n)}, n, kRows * n);
    std::vector<float> exact(want.begin(), want.end() - n);
    expect_near(mx::slice(out, {0}, {(kRows - 1) * n}), exact, 2e-6f);
    std::vector<float> rounded(want.end() - n, want.end());
    expect_near(mx::slice(out, {(kRows - 1) * n}, {kRows * n}), rounded, 1e-2f);
  }
}

TEST(KernelDialect, LeavesReturnedThreadsOutOfSimdFunctions) {
  const auto out = run_body(
      "early",
      "uint i = thread_position_in_threadgroup.x;\n"
      "if (i >= 21) return;\n"
      "float total = simd_sum(a[i]);\n"
      "if (simd_is_first()) out[0] = total;\n"
      "out[1 + i] = simd_max(float(i));",
      {mx::ones({32})},
      32,
      33);
  std::vector<float> want = {21};
  want.insert(want.end(), 21, 20);
  want.insert(want.end(), 11, -1);
  expect_near(out, want, 0);
}

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

TEST(KernelDialect, UpdatesAtomics) {
  const Kernel updates(
      {.name = "updates",
       .outputs = {"ints", "floats"},
       .body = R"(
    int i = int(thread_position_in_grid.x) + 1;
    atomic_fetch_add_explicit(&ints[0], i, memory_order_relaxed);
    atomic_fetch_sub_explicit(&ints[1], i, memory_order_relaxed);
    atomic_fetch_max_explicit(&ints[2], i, memory_order_relaxed);
    atomic_fetch_min_explicit(&ints[3], -i, memory_order_relaxed);
    atomic_fetch_or_explicit(&ints[4], 1 << (i % 20), memory_order_relaxed);
    atomic_fetch_and_explicit(&ints[5], ~(1 << (i % 20)), memory_order_relaxed);
    atomic_fetch_xor_explicit(&ints[6], i, memory_order_relaxed);
    int expected = atomic_load_explicit(&ints[7], memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&ints[7], &expected,
        expected + 2, memory_order_relaxed, memory_order_relaxed)) {}
    atomic_fetch_add_explicit(&floats[0], 0.5f, memory_order_relaxed);
    atomic_fetch_max_explicit(&floats[1], float(i), memory_order_relaxed);
)",
       .atomic_outputs = true},
      {.grid = KernelSize{3000},
       .threadgroup = KernelSize{96},
       .output_shapes = std::vector<mx::Shape>{{8}, {2}},
       .output_dtypes = std::vector<mx::Dtype>{mx::int32, mx::float32},
       .init_value = 0.0f});
  const auto out = updates({});
  const float sum = 3000.0f * 3001 / 2;
  expect_near(
      out[0], {sum, -sum, 3000, -3000, (1 << 20) - 1, 0, 3000, 6000}, 0);
  expect_near(out[1], {1500, 3000}, 0);
}

TEST(KernelDialect, MultipliesMatricesOfASimdGroup) {
  const auto a = mx::reshape(ramp(24 * 16), {24, 16});
  const auto b = mx::reshape(mx::multiply(ramp(16 * 8), ramp(16 * 8)), {16, 8});
  for (const auto dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    const Kernel multiply(
        {.name = "matrices",
         .inputs = {"a", "b"},
         .outputs = {"out", "turned", "eye"},
         .body = R"(
    uint row = threadgroup_position_in_grid.x * 8;
    simdgroup_matrix<float, 8, 8> sum = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
    simdgroup_matrix<T, 8, 8> x, y;
    for (uint k = 0; k < 16; k += 8) {
      simdgroup_load(x, a + row * 16 + k, 16);
      simdgroup_load(y, b, 8, ulong2(0, k));
      simdgroup_multiply_accumulate(sum, x, y, sum);
    }
    sum.thread_elements()[0] -= 1;
    sum.thread_elements().y -= 1;
    simdgroup_store(sum, out + row * 8, 8);
    simdgroup_store(sum, turned, 24, ulong2(row, 0), true);
    simdgroup_float8x8 two(2.0f);
    simdgroup_multiply(sum, sum, two);
    simdgroup_store(sum, eye + row * 8, 8);
)"},
        {.grid = KernelSize{96},
         .threadgroup = KernelSize{32},
         .output_shapes = std::vector<mx::Shape>{{24, 8}, {8, 24}, {24, 8}},
         .output_dtypes =
             std::vector<mx::Dtype>{mx::float32, mx::float32, mx::float32},
         .templates = std::vector<KernelTemplateArgument>{{"T", dtype}}});
    const auto x = mx::astype(a, dtype), y = mx::astype(b, dtype);
    const auto got = multiply({x, y});
    const auto product = mx::sum(
        mx::multiply(
            mx::expand_dims(mx::astype(x, mx::float32), 2),
            mx::expand_dims(mx::astype(y, mx::float32), 0)),
        1);
    expect_near(got[0], values(product), 1e-5f);
    expect_near(got[1], values(mx::transpose(product)), 1e-5f);
    expect_near(got[2], values(mx::multiply(product, mx::array(2.0f))), 1e-5f);
  }
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
