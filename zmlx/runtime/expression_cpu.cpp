// SPDX-License-Identifier: MIT
#include "zmlx/runtime/expression_cpu.h"

#include <algorithm>

#include "zmlx/runtime/lane_block.h"
#include "zmlx/runtime/lane_split.h"

namespace zmlx {

struct CpuExpression::Plan {
  cpu::LaneProgram program;
};

CpuExpression::CpuExpression(const dialect::FlatExpression& expression)
    : plan_(
          std::make_shared<Plan>(
              Plan{cpu::LaneProgram(expression, expression.num_inputs)})) {}

void CpuExpression::run(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) const {
  const auto& program = plan_->program;
  const auto& shape = outputs[0].shape();
  const auto size = static_cast<int64_t>(outputs[0].size());
  if (size == 0) {
    return;
  }
  std::vector<cpu::LaneArray> from, to;
  for (const auto& input : inputs) {
    from.emplace_back(input, cpu::Layout::broadcast(input, shape));
  }
  for (const auto& output : outputs) {
    to.emplace_back(output, cpu::Layout::contiguous(shape));
  }
  const int64_t block = cpu::block_lanes(
      program, static_cast<int>(inputs.size() + outputs.size()));
  const auto store = cpu::choose_store(inputs, outputs);
  // A few blocks at a time to whoever is free.
  const int64_t part = std::max<int64_t>(8 * block, 16384);
  const int64_t lead = std::min(size, cpu::lanes_to_line(to[0], 0));
  const auto begin = [&](int64_t i) { return i == 0 ? 0 : lead + i * part; };
  cpu::for_each_part(
      std::max<int64_t>(1, (size - lead + part - 1) / part),
      size * (program.num_steps() + 1),
      [&] { return cpu::BlockRunner(program, from, to, block, store); },
      [&](cpu::BlockRunner& runner, int64_t i) {
        runner.run_all(begin(i), std::min(size, begin(i + 1)));
      });
}

} // namespace zmlx
