// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/packed_spec.h"

#include "zmlx/kernels/common/reference.h"

namespace zmlx::packed {

std::vector<KernelArray> with_matrices(
    std::vector<KernelArray> inputs,
    const std::vector<std::pair<std::string, std::string>>& matrices) {
  for (const auto& [name, contract] : matrices) {
    inputs.push_back({name + " words", contract + " packed, uint32", false});
    inputs.push_back({name + " scales", "float, one a group", false});
    inputs.push_back({name + " biases", "as scales", false});
  }
  return inputs;
}

std::vector<KernelParam> packing_params() {
  return {{"bits", "2, 3, 4, 5, 6 or 8"}, {"group_size", "32, 64 or 128"}};
}

Arrays
inputs_of(const KernelCase& one, size_t first, size_t matrices, uint64_t seed) {
  using reference::whole;
  Arrays inputs;
  for (size_t i = 0; i < one.shapes.size(); ++i) {
    const mx::array values = normal_values(
        one.shapes[i], i < first ? one.dtype : mx::float32, seed + i);
    if (i < first || i >= first + matrices) {
      inputs.push_back(values);
      continue;
    }
    for (auto& part : mx::quantize(
             values,
             whole(one.params, "group_size"),
             whole(one.params, "bits"))) {
      inputs.push_back(part);
    }
  }
  return inputs;
}

} // namespace zmlx::packed
