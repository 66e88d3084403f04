// SPDX-License-Identifier: MIT
// A flat expression as a list of steps over blocks of lanes, and the memory of
// one thread that runs it.
#pragma once

#include <cstdint>
#include <vector>

#include "zmlx/dialect/expression.h"
#include "zmlx/runtime/expression_steps.h"

namespace zmlx::cpu {

/// Lanes in memory: groups that follow each other, or one group that stands for
/// all (stride 0).
struct Lanes {
  const float* data = nullptr;
  int64_t stride = kGroup;
};

/// `count` rounded up to whole groups.
inline int64_t whole_groups(int64_t count) {
  return (count + kGroup - 1) / kGroup * kGroup;
}

/// Immutable. What depends on constants and uniform inputs only is computed
/// once for many blocks.
class LaneProgram {
 public:
  /// uniform_from: inputs of this number and up have one value for all lanes.
  LaneProgram(const dialect::FlatExpression& expression, int uniform_from);

  int num_inputs() const {
    return num_inputs_;
  }
  int num_outputs() const {
    return static_cast<int>(outputs_.size());
  }
  bool uses_input(int input) const {
    return used_[input];
  }
  /// Blocks that a thread needs for results that are not outputs alone.
  int num_slots() const {
    return num_slots_;
  }
  /// Steps for each block; a measure of its work.
  int num_steps() const {
    return static_cast<int>(block_steps_.size());
  }

 private:
  friend class LaneRunner;

  struct Step {
    dialect::Op op;
    dialect::Type type; // of its last operand
    int args[3];
    int result;
  };
  enum class Kind : uint8_t { Constant, Input, Uniform, Block };

  void sort_steps(const dialect::FlatExpression& expression);
  void assign_slots();

  int num_inputs_, uniform_from_, num_slots_ = 0;
  // One for each instruction of the expression:
  std::vector<Kind> kinds_;
  std::vector<uint32_t> bits_; // Constant: its lane; Input: its number
  std::vector<int> slots_; // Block: its slot
  std::vector<Step> uniform_steps_, block_steps_;
  std::vector<int> outputs_;
  std::vector<bool> used_; // one for each input
};

/// Runs a program; one thread's. Resolves the steps for this processor.
class LaneRunner {
 public:
  /// Blocks have at most block_lanes lanes, a multiple of kGroup.
  LaneRunner(const LaneProgram& program, int64_t block_lanes);

  /// Sets a uniform input; compute_uniform() follows when all are set.
  void set_uniform(int input, float value);
  void compute_uniform();

  /// Where the lanes of an input are, for the blocks that follow.
  void set_input(int input, Lanes lanes) {
    inputs_[input] = lanes;
  }
  /// Has output k written to `out` if some step makes it; the caller compares
  /// output(k).data afterwards. nullptr: wherever it is.
  void set_target(int k, float* out);

  void run_block(int64_t groups);
  /// The lanes of output k, valid until the next block.
  Lanes output(int k) const {
    return values_[program_.outputs_[k]];
  }

 private:
  void run_steps(
      const std::vector<LaneProgram::Step>& steps,
      const std::vector<StepFunction>& functions,
      int64_t groups);

  const LaneProgram& program_;
  std::vector<float> memory_;
  std::vector<Lanes> values_; // of each instruction
  std::vector<Lanes> inputs_;
  std::vector<float*> own_; // where each instruction's result goes
  std::vector<float*> uniform_inputs_;
  std::vector<StepFunction> uniform_functions_, block_functions_;
};

} // namespace zmlx::cpu
