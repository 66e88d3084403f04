// SPDX-License-Identifier: MIT
// A program run block by block on arrays.
#pragma once

#include <cstdint>
#include <vector>

#include "zmlx/runtime/lane_array.h"
#include "zmlx/runtime/lane_program.h"

namespace zmlx::cpu {

/// Lanes of a block with which the blocks of a program, its `arrays` among
/// them, stay in the first-level cache; a power of two.
int64_t block_lanes(const LaneProgram& program, int arrays);

/// An empty list, for programs whose outputs stay in lanes.
const std::vector<LaneArray>& no_arrays();

/// Lanes from `begin` on to the next cache line of a float32 array, else 0.
/// Allocated arrays do not start on one.
int64_t lanes_to_line(const LaneArray& array, int64_t begin);

/// How outputs are stored.
enum class Store : uint8_t {
  Copied, // computed elsewhere first: an output may share an input's memory
  Direct, // where they belong
};

/// One thread's program over arrays of lanes: the first inputs of the program
/// come from arrays, all outputs (or, for an empty list, none) go to arrays.
class BlockRunner {
 public:
  /// Everything outlives this.
  BlockRunner(
      const LaneProgram& program,
      const std::vector<LaneArray>& inputs,
      const std::vector<LaneArray>& outputs,
      int64_t block_lanes,
      Store store);

  LaneRunner& lanes() {
    return runner_;
  }
  /// Takes an input from memory, where lane i is at data[i - origin]; whole
  /// groups are readable.
  void set_memory(int input, const float* data, int64_t origin) {
    memory_ = {input, data, origin};
  }
  int64_t block_lanes() const {
    return block_lanes_;
  }

  /// Computes lanes [begin, begin + count), at most block_lanes() of them.
  void run(int64_t begin, int64_t count);
  /// The same for any number of lanes.
  void run_all(int64_t begin, int64_t end);

  /// Output k of the last block with its lanes from `count` on set to `value`.
  Lanes padded_output(int k, int64_t count, float value);

 private:
  void load(int64_t begin, int64_t count);
  void store(int k, int64_t begin, int64_t count);

  struct Memory {
    int input = -1;
    const float* data = nullptr;
    int64_t origin = 0;
  };

  LaneRunner runner_;
  Memory memory_;
  std::vector<bool> used_;
  const std::vector<LaneArray>& inputs_;
  const std::vector<LaneArray>& outputs_;
  int64_t block_lanes_;
  Store store_;
  std::vector<std::vector<float>> loaded_; // of each input, where needed
  std::vector<float> spare_; // one block
};

} // namespace zmlx::cpu
