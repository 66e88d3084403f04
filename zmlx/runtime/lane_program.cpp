// SPDX-License-Identifier: MIT
#include "zmlx/runtime/lane_program.h"

#include <algorithm>
#include <bit>

namespace zmlx::cpu {

using dialect::Op;
using dialect::Type;

StepFunction find_step(Op op, Type type) {
  for (auto step : {plain_step(op, type), exp_step(op), special_step(op)}) {
    if (step) {
      return step;
    }
  }
  return trig_step(op);
}

LaneProgram::LaneProgram(
    const dialect::FlatExpression& expression,
    int uniform_from)
    : num_inputs_(expression.num_inputs),
      uniform_from_(uniform_from),
      outputs_(expression.outputs),
      used_(expression.num_inputs, false) {
  sort_steps(expression);
  assign_slots();
}

// Sorts instructions into leaves, steps done once and steps of every block.
void LaneProgram::sort_steps(const dialect::FlatExpression& expression) {
  const auto& code = expression.code;
  for (int i = 0; i < static_cast<int>(code.size()); ++i) {
    const auto& instruction = code[i];
    bits_.push_back(instruction.bits);
    if (instruction.op == Op::Constant) {
      kinds_.push_back(Kind::Constant);
      if (instruction.type == Type::Bool && instruction.bits != 0) {
        bits_.back() = ~0u;
      }
      continue;
    }
    if (instruction.op == Op::Input) {
      kinds_.push_back(Kind::Input);
      used_[instruction.bits] = true;
      continue;
    }
    const int arity = dialect::arity(instruction.op);
    Step step{instruction.op, Type::Float, {-1, -1, -1}, i};
    bool uniform = true;
    for (int k = 0; k < arity; ++k) {
      const int arg = instruction.args[k];
      step.args[k] = arg;
      step.type = code[arg].type;
      uniform = uniform &&
          (kinds_[arg] == Kind::Constant || kinds_[arg] == Kind::Uniform ||
           (kinds_[arg] == Kind::Input &&
            static_cast<int>(bits_[arg]) >= uniform_from_));
    }
    kinds_.push_back(uniform ? Kind::Uniform : Kind::Block);
    (uniform ? uniform_steps_ : block_steps_).push_back(step);
  }
}

// A result's block is free again after its last use; a step may write where
// one of its operands was.
void LaneProgram::assign_slots() {
  slots_.assign(kinds_.size(), -1);
  std::vector<int> last_use(kinds_.size(), -1);
  for (int s = 0; s < static_cast<int>(block_steps_.size()); ++s) {
    for (int arg : block_steps_[s].args) {
      if (arg >= 0) {
        last_use[arg] = s;
      }
    }
  }
  for (int output : outputs_) {
    last_use[output] = static_cast<int>(block_steps_.size());
  }
  std::vector<int> free;
  for (int s = 0; s < static_cast<int>(block_steps_.size()); ++s) {
    const auto& step = block_steps_[s];
    for (int k = 0; k < 3; ++k) {
      const int arg = step.args[k];
      const bool again = std::find(step.args, step.args + k, arg) !=
          step.args + k; // x * x frees x once
      if (arg >= 0 && !again && kinds_[arg] == Kind::Block &&
          last_use[arg] == s) {
        free.push_back(slots_[arg]);
      }
    }
    if (free.empty()) {
      free.push_back(num_slots_++);
    }
    slots_[step.result] = free.back();
    free.pop_back();
  }
}

LaneRunner::LaneRunner(const LaneProgram& program, int64_t block_lanes)
    : program_(program),
      values_(program.kinds_.size()),
      inputs_(program.num_inputs_),
      own_(program.kinds_.size(), nullptr),
      uniform_inputs_(program.num_inputs_, nullptr) {
  using Kind = LaneProgram::Kind;
  int64_t small = std::max(0, program.num_inputs_ - program.uniform_from_);
  for (auto kind : program.kinds_) {
    small += kind == Kind::Constant || kind == Kind::Uniform;
  }
  constexpr int64_t kLine = 16; // floats of a cache line
  memory_.resize(small * kGroup + program.num_slots_ * block_lanes + kLine);
  auto address = reinterpret_cast<uintptr_t>(memory_.data());
  float* next = memory_.data() + (64 - address % 64) % 64 / sizeof(float);
  const auto take = [&](int64_t lanes) {
    float* taken = next;
    next += lanes;
    return taken;
  };
  for (int i = std::max(0, program.uniform_from_); i < program.num_inputs_;
       ++i) {
    uniform_inputs_[i] = take(kGroup);
    inputs_[i] = {uniform_inputs_[i], 0};
  }
  float* slots = take(program.num_slots_ * block_lanes);
  for (size_t i = 0; i < program.kinds_.size(); ++i) {
    if (program.kinds_[i] == Kind::Block) {
      own_[i] = slots + program.slots_[i] * block_lanes;
      values_[i] = {own_[i], kGroup};
    } else if (program.kinds_[i] != Kind::Input) {
      own_[i] = take(kGroup);
      values_[i] = {own_[i], 0};
      std::fill_n(own_[i], kGroup, std::bit_cast<float>(program.bits_[i]));
    }
  }
  for (const auto& step : program.uniform_steps_) {
    uniform_functions_.push_back(find_step(step.op, step.type));
  }
  for (const auto& step : program.block_steps_) {
    block_functions_.push_back(find_step(step.op, step.type));
  }
  compute_uniform();
}

void LaneRunner::set_uniform(int input, float value) {
  std::fill_n(uniform_inputs_[input], kGroup, value);
}

void LaneRunner::set_target(int k, float* out) {
  const int value = program_.outputs_[k];
  if (program_.kinds_[value] == LaneProgram::Kind::Block) {
    values_[value].data = out ? out : own_[value];
  }
}

void LaneRunner::run_steps(
    const std::vector<LaneProgram::Step>& steps,
    const std::vector<StepFunction>& functions,
    int64_t groups) {
  for (size_t s = 0; s < steps.size(); ++s) {
    const auto& step = steps[s];
    StepArgs args;
    for (int k = 0; k < 3; ++k) {
      const auto lanes = step.args[k] < 0 ? Lanes{} : values_[step.args[k]];
      args.in[k] = lanes.data;
      args.stride[k] = lanes.stride;
    }
    args.out = const_cast<float*>(values_[step.result].data);
    args.groups = groups;
    functions[s](args);
  }
}

void LaneRunner::compute_uniform() {
  for (size_t i = 0; i < values_.size(); ++i) {
    if (program_.kinds_[i] == LaneProgram::Kind::Input) {
      values_[i] = inputs_[program_.bits_[i]];
    }
  }
  run_steps(program_.uniform_steps_, uniform_functions_, 1);
}

void LaneRunner::run_block(int64_t groups) {
  for (size_t i = 0; i < values_.size(); ++i) {
    if (program_.kinds_[i] == LaneProgram::Kind::Input) {
      values_[i] = inputs_[program_.bits_[i]];
    }
  }
  run_steps(program_.block_steps_, block_functions_, groups);
}

} // namespace zmlx::cpu
