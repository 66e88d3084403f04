// SPDX-License-Identifier: MIT
#include "zmlx/runtime/cpu_dispatch.h"

#include <utility>

#include "zmlx/runtime/mlx_internals.h"
#include "zmlx/runtime/output_buffer.h"

namespace zmlx {

bool take_over(const mx::array& input, mx::array& output) {
  if (!input.is_donatable() || !input.flags().row_contiguous ||
      input.dtype() != output.dtype() || input.size() != output.size()) {
    return false;
  }
  output.copy_shared_buffer(input);
  return true;
}

void allocate(std::vector<mx::array>& outputs) {
  for (auto& output : outputs) {
    if (!output.data_shared_ptr()) {
      output.set_data(output_buffer(output.nbytes()));
    }
  }
}

void dispatch_cpu(
    const mx::Stream& stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    CpuTask task) {
  auto& encoder = mx::cpu::get_command_encoder(stream);
  std::vector<mx::array> in, out;
  for (const auto& array : inputs) {
    encoder.set_input_array(array);
    in.push_back(mx::array::unsafe_weak_copy(array));
  }
  for (auto& array : outputs) {
    encoder.set_output_array(array);
    out.push_back(mx::array::unsafe_weak_copy(array));
  }
  encoder.dispatch([task = std::move(task),
                    in = std::move(in),
                    out = std::move(out)]() mutable { task(in, out); });
}

} // namespace zmlx
