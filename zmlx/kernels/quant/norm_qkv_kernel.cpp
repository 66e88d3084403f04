// SPDX-License-Identifier: MIT
#include "zmlx/kernels/quant/norm_qkv_kernel.h"

#include <algorithm>
#include <bit>

#include "zmlx/authoring/kernel.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/unit_product.h"

namespace zmlx::quant {
namespace {

constexpr int kThreads = 256;
// Of a matrix: a SIMD-group takes two.
constexpr int kRowsOfGroup = kThreads / 32 * 2;

const char* kHeader = R"(
// The units that a threadgroup holds, from `chunk` on, times two rows.
template <int BITS, int GROUP, int ROWS, int UNITS, typename S>
inline void add_products(
    const threadgroup float* held,
    int chunk,
    int units,
    int first,
    int lane,
    const device uint32_t* words,
    const device S* scales,
    const device S* biases,
    thread float* sums) {
  for (int u = lane; u < units; u += 32) {
    Unit v = unit_at(held, u);
    for (int r = 0; r < 2; ++r) {
      size_t row = min(first + r, ROWS - 1);
      sums[r] += product<BITS, GROUP>(
          words, scales, biases, row * UNITS + chunk + u, v);
    }
  }
}

template <int ROWS, typename T>
inline void store_rows(int first, const thread float* sums, device T* out) {
  for (int row = first; row < min(first + 2, ROWS); ++row) {
    out[row] = T(sums[row - first]);
  }
}

template <int ROWS, typename B>
inline void add_bias(int first, const device B* bias, thread float* sums) {
  for (int row = first; row < min(first + 2, ROWS); ++row) {
    sums[row - first] += float(bias[row]);
  }
}
)";

// Every threadgroup normalises the row for itself, then takes rows of one
// matrix.
const char* kNormalise = R"(
  threadgroup float held[HELD * 36];
  threadgroup float partial[32];
  int lane = thread_index_in_simdgroup, group = simdgroup_index_in_threadgroup;
  int at = thread_index_in_threadgroup, threads = threads_per_threadgroup.x;
  int token = threadgroup_position_in_grid.y;
  const size_t x_at = size_t(token) * UNITS * 32;
  float squares = 0;
  for (int i = at; i < UNITS * 32; i += threads) {
    float value = float(x[x_at + i]);
    squares = fma(value, value, squares);
  }
  squares = simd_sum(squares);
  if (lane == 0) {
    partial[group] = squares;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  squares = simd_sum(lane < threads / 32 ? partial[lane] : 0.0f);
  float scale =
      1.0f / sqrt(squares / float(UNITS * 32) + as_type<float>(EPS));
  int block = threadgroup_position_in_grid.x, first = 0, matrix = 0;
  float sums[2] = {0, 0};
)";

const char* kChunks = R"(
  first += group * 2;
  for (int chunk = 0; chunk < UNITS; chunk += HELD) {
    int units = min(HELD, UNITS - chunk);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = at; i < units * 32; i += threads) {
      float w = float(norm_weight[chunk * 32 + i]);
      w = ONE_PLUS ? float(N(1.0f + w)) : w;
      held[i / 32 * 36 + i % 32] = float(x[x_at + chunk * 32 + i]) * scale * w;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
)";

/// The text of `count` matrices, where `#` is a matrix's number.
std::string for_each_matrix(int count, const std::string& text) {
  std::string all;
  for (int i = 0; i < count; ++i) {
    for (const char letter : text) {
      all += letter == '#' ? static_cast<char>('0' + i) : letter;
    }
  }
  return all;
}

std::string body(int count, bool biased) {
  return concat(
      kNormalise,
      for_each_matrix(count, R"(
  if (block >= FIRST#) {
    matrix = #;
    first = (block - FIRST#) * ROWS_OF_GROUP;
  }
)"),
      kChunks,
      for_each_matrix(count, R"(
    if (matrix == #) {
      add_products<BITS#, GROUP#, ROWS#, UNITS>(
          held, chunk, units, first, lane, words#, scales#, biases#, sums);
    }
)"),
      R"(
  }
  sums[0] = simd_sum(sums[0]);
  sums[1] = simd_sum(sums[1]);
  if (lane != 0) {
    return;
  }
)",
      for_each_matrix(biased ? count : 0, R"(
  if (matrix == #) {
    add_bias<ROWS#>(first, bias#, sums);
  }
)"),
      for_each_matrix(count, R"(
  if (matrix == #) {
    store_rows<ROWS#>(first, sums, out# + size_t(token) * ROWS#);
  }
)"));
}

Kernel kernel_of(int count, bool biased) {
  KernelSource source{
      .name = concat("norm_qkv_", count, biased ? "_biased" : ""),
      .inputs = {"x", "norm_weight"},
      .outputs = {},
      .body = body(count, biased),
      .header = concat(kUnitProduct, kHeader)};
  for (int i = 0; i < count; ++i) {
    for (const char* part : {"words", "scales", "biases"}) {
      source.inputs.push_back(concat(part, i));
    }
    if (biased) {
      source.inputs.push_back(concat("bias", i));
    }
    source.outputs.push_back(concat("out", i));
  }
  return Kernel(std::move(source));
}

/// Arguments cost time at every call: those of biases only where there are.
const Kernel& known_kernel(size_t count, bool biased) {
  static const Kernel kernels[] = {
      kernel_of(1, false),
      kernel_of(1, true),
      kernel_of(2, false),
      kernel_of(2, true),
      kernel_of(3, false),
      kernel_of(3, true)};
  return kernels[2 * (count - 1) + (biased ? 1 : 0)];
}

} // namespace

bool fits_kernel(const NormQkv& with) {
  return std::ranges::all_of(with.linears, [](const PackedLinear& linear) {
    return fits_unit_product(linear.weight);
  });
}

std::vector<mx::array> norm_qkv_by_kernel(
    const mx::array& x,
    const NormQkv& with) {
  const int dim = x.shape(-1), units = dim / kUnit;
  const int tokens = static_cast<int>(x.size()) / dim;
  const bool biased = std::ranges::any_of(
      with.linears,
      [](const PackedLinear& linear) { return linear.bias.has_value(); });
  std::vector<mx::array> inputs = {x, with.norm_weight};
  std::vector<mx::Shape> shapes;
  std::vector<KernelTemplateArgument> templates = {
      {"N", with.norm_weight.dtype()},
      {"EPS", std::bit_cast<int>(with.eps)},
      {"UNITS", units},
      {"HELD", std::min(units, kHeldUnits)},
      {"ONE_PLUS", with.one_plus},
      {"ROWS_OF_GROUP", kRowsOfGroup}};
  int groups = 0, number = 0;
  for (const auto& [weight, bias] : with.linears) {
    const auto name = [number](std::string what) {
      return what += static_cast<char>('0' + number);
    };
    const int rows = rows_of(weight);
    inputs.insert(inputs.end(), {weight.words, weight.scales, weight.biases});
    if (biased) {
      inputs.push_back(bias.value_or(mx::zeros({rows}, mx::float32)));
    }
    shapes.push_back(x.shape());
    shapes.back().back() = rows;
    templates.emplace_back(name("FIRST"), groups);
    templates.emplace_back(name("ROWS"), rows);
    templates.emplace_back(name("BITS"), weight.bits);
    templates.emplace_back(name("GROUP"), weight.group_size);
    groups += groups_for(rows, kRowsOfGroup);
    ++number;
  }
  return known_kernel(with.linears.size(), biased)(
      inputs,
      {.grid = KernelSize{groups * kThreads, tokens},
       .threadgroup = KernelSize{kThreads},
       .output_shapes = std::move(shapes),
       .output_dtypes = std::vector<mx::Dtype>(with.linears.size(), x.dtype()),
       .templates = std::move(templates)});
}

} // namespace zmlx::quant
