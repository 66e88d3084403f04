// SPDX-License-Identifier: MIT
#include "zmlx/authoring/kernel_spec.h"

#include "zmlx/base/error.h"

namespace zmlx {

std::string dtype_name(mx::Dtype dtype) {
  return concat(dtype);
}

std::string to_text(const KernelCase& one) {
  std::string text = dtype_name(one.dtype);
  for (const auto& shape : one.shapes) {
    text += concat(' ', shape);
  }
  for (const auto& [name, value] : one.params) {
    text += concat(' ', name, '=', value);
  }
  return text;
}

Arrays
make_inputs(const KernelSpec& spec, const KernelCase& one, uint64_t seed) {
  if (spec.make_inputs) {
    return spec.make_inputs(one, seed);
  }
  Arrays inputs;
  for (const auto& shape : one.shapes) {
    inputs.push_back(normal_values(shape, one.dtype, seed++));
  }
  return inputs;
}

Traffic traffic_of(
    const KernelSpec& spec,
    const Arrays& inputs,
    const Arrays& outputs) {
  if (spec.traffic) {
    return spec.traffic(inputs, outputs);
  }
  Traffic traffic;
  for (const auto* arrays : {&inputs, &outputs}) {
    for (const auto& array : *arrays) {
      traffic.bytes += static_cast<double>(array.nbytes());
    }
  }
  return traffic;
}

std::vector<KernelCase> cases_of(
    const std::vector<std::vector<mx::Shape>>& shapes,
    const Params& params) {
  std::vector<KernelCase> cases;
  for (const auto& each : shapes) {
    for (mx::Dtype dtype : {mx::float32, mx::float16, mx::bfloat16}) {
      cases.push_back({dtype, each, params});
    }
  }
  return cases;
}

} // namespace zmlx
