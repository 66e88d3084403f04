// SPDX-License-Identifier: MIT
#include "zmlx/authoring/gpu_program.h"

#include <algorithm>
#include <limits>

#include "mlx/primitives.h"

#include "zmlx/base/error.h"
#include "zmlx/base/hash.h"
#include "zmlx/base/text.h"
#include "zmlx/dialect/kernel_text.h"
#include "zmlx/runtime/host_kernel.h"

namespace zmlx {
namespace {

using dialect::KernelBody;
using dialect::KernelText;
using dialect::Layout;

std::vector<std::string> types_of(const std::vector<mx::array>& arrays) {
  std::vector<std::string> types;
  for (const auto& array : arrays) {
    types.push_back(dialect_type("expression", array.dtype()));
  }
  return types;
}

mx::fast::CustomKernelFunction make_kernel(
    const KernelBody& body,
    const std::vector<mx::array>& inputs,
    const std::vector<std::string>& output_types) {
  KernelText text;
  text.header = body.header;
  text.body = body.body;
  std::vector<std::string> input_names, output_names;
  const auto input_types = types_of(inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    input_names.push_back(concat("x", i));
    text.inputs.push_back(
        {input_names[i], input_types[i], inputs[i].ndim() == 0});
  }
  for (size_t i = 0; i < output_types.size(); ++i) {
    output_names.push_back(concat("y", i));
    text.outputs.push_back({output_names[i], output_types[i], false});
  }
  // MLX keeps modules by name, so the name tells texts and types apart.
  Hash hash;
  for (const auto& part : {body.header, body.body}) {
    hash.add(part);
  }
  for (const auto* types : {&input_types, &output_types}) {
    hash.add(join(*types, ",") + ';');
  }
  text.name = "zmlx_" + hash.hex();
  if (!mx::cu::is_available()) {
    return mx::fast::metal_kernel(
        text.name, input_names, output_names, text.body, text.header, false);
  }
  const auto translated = dialect::cuda_kernel_text(text, true);
  return mx::fast::cuda_kernel(
      text.name,
      input_names,
      output_names,
      translated.source,
      translated.header,
      false);
}

Layout layout_of(const mx::array& input) {
  return input.flags().row_contiguous ? Layout::Flat
      : input.data_size() == 1        ? Layout::Single
                                      : Layout::Strided;
}

// Elements of the narrowest array that fill 16 bytes.
int elements_at_once(
    const std::vector<mx::array>& inputs,
    const std::vector<mx::array>& outputs) {
  constexpr int kBytes = 16, kMost = 8;
  int wide = 2;
  for (const auto* arrays : {&inputs, &outputs}) {
    for (const auto& array : *arrays) {
      wide = std::max(wide, kBytes / static_cast<int>(array.itemsize()));
    }
  }
  return std::min(wide, kMost);
}

// Whether the array's elements lie at multiples of `wide` of them, up to 16
// bytes. Buffers begin where any type may.
bool is_aligned(const mx::array& array, int wide) {
  const auto bytes = std::min<size_t>(16, wide * array.itemsize());
  return static_cast<size_t>(array.offset()) % bytes == 0;
}

} // namespace

void GpuKernels::launch(
    const Launch& launch,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    const mx::Stream& stream) {
  const auto types = types_of(outputs);
  std::string key = concat(launch.key, 'w', launch.wide);
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> dtypes;
  for (const auto& output : outputs) {
    shapes.push_back(output.shape());
    dtypes.push_back(output.dtype());
  }
  for (const auto& type : types) {
    key += ',' + type;
  }
  for (const auto& type : types_of(inputs)) {
    key += ',' + type;
  }
  mx::fast::CustomKernelFunction function;
  {
    const std::lock_guard lock(mutex_);
    auto& known = known_[key];
    if (!known) {
      known = make_kernel(
          launch.body({types_of(inputs), types, launch.wide}), inputs, types);
    }
    function = known;
  }
  const size_t threads = launch.groups * static_cast<size_t>(launch.threads);
  if (threads > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    throw BackendError(concat(
        "[expression] a GPU takes at most 2^31 threads, got ", threads, "."));
  }
  // The kernel's own primitive computes our outputs.
  const auto made = function(
      inputs,
      shapes,
      dtypes,
      {static_cast<int>(threads), 1, 1},
      {launch.threads, 1, 1},
      {},
      std::nullopt,
      false,
      stream);
  made[0].primitive().eval_gpu(inputs, outputs);
}

void GpuKernels::run(
    const dialect::FlatExpression& expression,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    const mx::Stream& stream) {
  constexpr int kThreads = 256;
  std::vector<Layout> layouts;
  Launch made;
  made.wide = elements_at_once(inputs, outputs);
  const bool scalar = outputs[0].ndim() == 0;
  bool wide = !scalar;
  for (const auto& input : inputs) {
    layouts.push_back(layout_of(input));
    made.key += static_cast<char>(layouts.back());
    wide = wide && layouts.back() != Layout::Strided &&
        (layouts.back() == Layout::Single || is_aligned(input, made.wide));
  }
  made.wide = wide ? made.wide : 1;
  made.key += scalar ? "0" : "";
  made.threads = kThreads;
  const size_t per_group =
      kThreads * std::max(dialect::kElementsPerThread, made.wide);
  made.groups = (outputs[0].size() + per_group - 1) / per_group;
  made.body = [&](const dialect::Elements& elements) {
    return dialect::elementwise_kernel(expression, layouts, elements, scalar);
  };
  launch(made, inputs, outputs, stream);
}

void GpuKernels::run(
    const dialect::RowProgram& program,
    int axis,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    const mx::Stream& stream) {
  const auto& shape = inputs[0].shape();
  const int num_axes = static_cast<int>(shape.size());
  const std::vector<mx::array> elements(
      inputs.begin(), inputs.begin() + program.num_elements);
  Launch made;
  made.wide = elements_at_once(elements, outputs);
  bool wide = axis == num_axes - 1 && shape[axis] % made.wide == 0;
  for (const auto& input : elements) {
    wide = wide && input.strides(axis) == 1 && is_aligned(input, made.wide);
    for (int i = 0; i < axis && wide; ++i) {
      wide = input.strides(i) % made.wide == 0;
    }
  }
  made.wide = wide ? made.wide : 1;
  made.groups = 1;
  for (int i = 0; i < num_axes; ++i) {
    made.groups *= i == axis ? 1 : static_cast<size_t>(shape[i]);
  }
  // As many elements a thread as it can keep, in whole SIMD-groups; of more
  // threads each would have too few registers.
  constexpr int kMost = 512;
  made.threads = 32;
  while (made.threads < kMost &&
         made.threads * dialect::kElementsHeld < shape[axis]) {
    made.threads *= 2;
  }
  const int from_end = num_axes - axis;
  made.key = concat("axis", from_end);
  made.body = [&](const dialect::Elements& types) {
    return dialect::rows_kernel(program, types, from_end);
  };
  launch(made, inputs, outputs, stream);
}

} // namespace zmlx
