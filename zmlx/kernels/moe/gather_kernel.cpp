// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/gather_kernel.h"

#include "zmlx/authoring/kernel.h"

namespace zmlx::moe {
namespace {

// A thread for each result; neighbours read neighbouring columns.
const char* kDense = R"(
  uint outs = weights_shape[2], ins = weights_shape[1], k = gate_shape[1];
  uint o = thread_position_in_grid.x % outs;
  uint b = thread_position_in_grid.x / outs;
  float total = 0;
  for (uint j = b * k; j < (b + 1) * k; ++j) {
    size_t w = size_t(indices[j]) * ins * outs + o;
    size_t x = size_t(j) * ins;
    float sum = 0;
    for (uint i = 0; i < ins; ++i, w += outs) {
      sum = fma(float(act[x + i]), float(weights[w]), sum);
    }
    total = fma(sum, float(gate[j]), total);
  }
  out[thread_position_in_grid.x] = T(total);
)";

// A SIMD-group for each result; lane l takes columns l, l + 32, ... of the row,
// a stream of BITS-bit fields.
const char* kQuantized = R"(
  uint outs = words_shape[1], pitch = words_shape[2], k = gate_shape[1];
  uint ins = scales_shape[2] * GROUP;
  uint lane = thread_index_in_simdgroup;
  uint at = thread_position_in_grid.x / 32;
  uint o = at % outs, b = at / outs;
  float total = 0;
  for (uint j = b * k; j < (b + 1) * k; ++j) {
    size_t row = size_t(indices[j]) * outs + o;
    size_t x = size_t(j) * ins;
    float sum = 0;
    for (uint i = lane; i < ins; i += 32) {
      uint bit = i * BITS, shift = bit % 32;
      size_t word = row * pitch + bit / 32;
      uint field = words[word] >> shift;
      if (shift + BITS > 32) {
        field |= words[word + 1] << (32 - shift);
      }
      size_t group = row * scales_shape[2] + i / GROUP;
      float value = fma(
          float(field & ((1u << BITS) - 1)),
          float(scales[group]),
          float(biases[group]));
      sum = fma(float(act[x + i]), value, sum);
    }
    total = fma(simd_sum(sum), float(gate[j]), total);
  }
  if (lane == 0) {
    out[at] = T(total);
  }
)";

// Of the inputs of floats; zeros for the others.
Kernel::Vjp gradients_through(const Composed& composed) {
  using Arrays = std::vector<mx::array>;
  return [composed](const Arrays& in, const Arrays& cotangents, const Arrays&) {
    Arrays floats, gradients;
    for (const auto& x : in) {
      if (mx::issubdtype(x.dtype(), mx::floating)) {
        floats.push_back(x);
      }
    }
    const auto function = [&](const Arrays& given) {
      Arrays all;
      size_t next = 0;
      for (const auto& x : in) {
        const bool is_float = mx::issubdtype(x.dtype(), mx::floating);
        all.push_back(is_float ? given[next++] : x);
      }
      return Arrays{composed(all)};
    };
    const auto made = mx::vjp(function, floats, cotangents).second;
    size_t next = 0;
    for (const auto& x : in) {
      const bool is_float = mx::issubdtype(x.dtype(), mx::floating);
      gradients.push_back(is_float ? made[next++] : mx::zeros_like(x));
    }
    return gradients;
  };
}

KernelLaunch launch_of(
    const mx::array& act,
    int outs,
    int threads_of_one,
    std::vector<KernelTemplateArgument> templates) {
  templates.emplace_back("T", act.dtype());
  return {
      .grid = KernelSize{act.shape(0) * outs * threads_of_one},
      .threadgroup = KernelSize{128},
      .output_shapes = std::vector<mx::Shape>{{act.shape(0), outs}},
      .output_dtypes = std::vector<mx::Dtype>{act.dtype()},
      .templates = std::move(templates)};
}

} // namespace

mx::array gather_by_kernel(
    const std::vector<mx::array>& inputs,
    const Composed& composed) {
  static const Kernel kernel(
      {.name = "moe_gather",
       .inputs = {"act", "weights", "gate", "indices"},
       .body = kDense});
  return kernel.custom_vjp(gradients_through(composed))(
      inputs, launch_of(inputs[0], inputs[1].shape(2), 1, {}))[0];
}

mx::array gather_by_kernel(
    const std::vector<mx::array>& inputs,
    int bits,
    int group_size,
    const Composed& composed) {
  static const Kernel kernel(
      {.name = "moe_gather_quantized",
       .inputs = {"act", "words", "scales", "biases", "gate", "indices"},
       .body = kQuantized});
  return kernel.custom_vjp(gradients_through(composed))(
      inputs,
      launch_of(
          inputs[0],
          inputs[1].shape(1),
          32,
          {{"BITS", bits}, {"GROUP", group_size}}))[0];
}

} // namespace zmlx::moe
