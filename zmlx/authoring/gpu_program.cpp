// SPDX-License-Identifier: MIT
#include "zmlx/authoring/gpu_program.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "mlx/primitives.h"

#include "zmlx/base/error.h"
#include "zmlx/base/hash.h"
#include "zmlx/base/text.h"
#include "zmlx/dialect/kernel_text.h"
#include "zmlx/runtime/host_kernel.h"
#include "zmlx/runtime/kept_compiled.h"

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
  return kept_compiled(
      mx::fast::cuda_kernel(
          text.name,
          input_names,
          output_names,
          translated.source,
          translated.header,
          false));
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

// The same elements with other axes, sharing the memory.
mx::array view(const mx::array& x, mx::Shape shape, mx::Strides strides) {
  mx::array made(std::move(shape), x.dtype(), nullptr, {});
  made.copy_shared_buffer(x, std::move(strides), x.flags(), x.data_size());
  return made;
}

// Inputs that are flat or of one element, with one axis; so a thread need not
// multiply the lengths of many.
std::vector<mx::array> as_vectors(
    const std::vector<mx::array>& inputs,
    const std::vector<Layout>& layouts) {
  const auto size = static_cast<mx::ShapeElem>(inputs[0].size());
  std::vector<mx::array> made;
  for (size_t i = 0; i < inputs.size(); ++i) {
    made.push_back(
        view(inputs[i], {size}, {layouts[i] == Layout::Flat ? 1 : 0}));
  }
  return made;
}

// Rows along the last axis as one axis, where their distance is one.
std::optional<mx::array> as_matrix(const mx::array& x) {
  int64_t pitch = 0, rows = 1;
  for (int i = static_cast<int>(x.ndim()) - 2; i >= 0; --i) {
    if (x.shape(i) == 1) {
      continue;
    }
    if (rows > 1 && x.strides(i) != pitch * rows) {
      return std::nullopt;
    }
    pitch = rows > 1 ? pitch : x.strides(i);
    rows *= x.shape(i);
  }
  if (rows > std::numeric_limits<int32_t>::max()) {
    return std::nullopt;
  }
  return view(
      x,
      {static_cast<mx::ShapeElem>(rows), x.shape(-1)},
      {pitch, x.strides(-1)});
}

// The inputs as (rows, length) where that is possible for all of them.
std::vector<mx::array> as_matrices(const std::vector<mx::array>& inputs) {
  std::vector<mx::array> made;
  for (const auto& x : inputs) {
    const auto matrix = as_matrix(x);
    if (!matrix) {
      return inputs;
    }
    made.push_back(*matrix);
  }
  return made;
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
  constexpr int kThreads = 128;
  std::vector<Layout> layouts;
  Launch made;
  made.wide = elements_at_once(inputs, outputs);
  const bool scalar = outputs[0].ndim() == 0;
  if (outputs[0].size() > std::numeric_limits<int32_t>::max()) {
    throw BackendError(concat(
        "[expression] a GPU takes at most 2^31 - 1 elements, got ",
        outputs[0].size(),
        "."));
  }
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
      kThreads * static_cast<size_t>(dialect::elements_per_thread(made.wide));
  made.groups = (outputs[0].size() + per_group - 1) / per_group;
  made.body = [&](const dialect::Elements& elements) {
    return dialect::elementwise_kernel(expression, layouts, elements, scalar);
  };
  const bool strided = std::ranges::count(layouts, Layout::Strided) > 0;
  launch(
      made,
      scalar || strided ? inputs : as_vectors(inputs, layouts),
      outputs,
      stream);
}

void GpuKernels::run(
    const dialect::RowProgram& program,
    int axis,
    const std::vector<mx::array>& given,
    std::vector<mx::array>& outputs,
    const mx::Stream& stream) {
  const int from_end = static_cast<int>(given[0].ndim()) - axis;
  const auto inputs = from_end == 1 ? as_matrices(given) : given;
  const auto& shape = inputs[0].shape();
  axis = static_cast<int>(shape.size()) - from_end;
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
  made.key = concat("axis", from_end);
  made.body = [&](const dialect::Elements& types) {
    return dialect::rows_kernel(program, types, from_end);
  };
  launch(made, inputs, outputs, stream);
}

} // namespace zmlx
