// SPDX-License-Identifier: MIT
// Where threads of a kernel meet: SIMD-groups, atomics, matrices of a group.
#include <algorithm>

#include "zmlx/authoring/kernel_test_tools.h"

namespace zmlx {
namespace {

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

} // namespace
} // namespace zmlx
