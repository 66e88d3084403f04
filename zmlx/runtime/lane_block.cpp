// SPDX-License-Identifier: MIT
#include "zmlx/runtime/lane_block.h"

#include <algorithm>
#include <bit>

#include "zmlx/runtime/lane_kernels.h"

namespace zmlx::cpu {

int64_t block_lanes(const LaneProgram& program, int arrays) {
  constexpr int64_t kFloats = 8192; // 32 KiB
  const int64_t lanes = kFloats / std::max(1, program.num_slots() + arrays);
  return std::clamp<int64_t>(
      static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(lanes))),
      4 * kGroup,
      32 * kGroup);
}

const std::vector<LaneArray>& no_arrays() {
  static const std::vector<LaneArray> none;
  return none;
}

int64_t lanes_to_line(const LaneArray& array, int64_t begin) {
  const float* first = array.direct(begin, 1);
  const auto address = reinterpret_cast<uintptr_t>(first);
  return first ? static_cast<int64_t>((64 - address % 64) % 64 / 4) : 0;
}

BlockRunner::BlockRunner(
    const LaneProgram& program,
    const std::vector<LaneArray>& inputs,
    const std::vector<LaneArray>& outputs,
    int64_t block_lanes,
    Store store)
    : runner_(program, block_lanes),
      inputs_(inputs),
      outputs_(outputs),
      block_lanes_(block_lanes),
      store_(store),
      loaded_(inputs.size()) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    used_.push_back(program.uses_input(static_cast<int>(i)));
  }
}

void BlockRunner::load(int64_t begin, int64_t count) {
  if (memory_.input >= 0) {
    runner_.set_input(
        memory_.input, {memory_.data + (begin - memory_.origin), kGroup});
  }
  const int64_t padded = whole_groups(count);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (!used_[i]) {
      continue;
    }
    const auto& array = inputs_[i];
    const float* direct =
        padded == count ? array.direct(begin, count) : nullptr;
    if (!direct) {
      auto& loaded = loaded_[i];
      loaded.resize(static_cast<size_t>(block_lanes_));
      array.read(begin, count, loaded.data());
      std::fill(loaded.begin() + count, loaded.begin() + padded, 0.0f);
      direct = loaded.data();
    }
    runner_.set_input(static_cast<int>(i), {direct, kGroup});
  }
}

void BlockRunner::run(int64_t begin, int64_t count) {
  load(begin, count);
  const bool whole = whole_groups(count) == count;
  if (store_ == Store::Direct) {
    for (size_t k = 0; k < outputs_.size(); ++k) {
      runner_.set_target(
          static_cast<int>(k),
          whole ? outputs_[k].direct(begin, count) : nullptr);
    }
  }
  runner_.run_block(whole_groups(count) / kGroup);
  for (size_t k = 0; k < outputs_.size(); ++k) {
    this->store(static_cast<int>(k), begin, count);
  }
}

void BlockRunner::store(int k, int64_t begin, int64_t count) {
  const auto& array = outputs_[k];
  auto lanes = runner_.output(k);
  float* direct = array.direct(begin, count);
  if (direct && direct == lanes.data) {
    return;
  }
  if (lanes.stride == 0) {
    spare_.resize(static_cast<size_t>(block_lanes_));
    std::fill_n(spare_.begin(), count, *lanes.data);
    lanes.data = spare_.data();
  }
  array.write(begin, count, lanes.data);
}

// Lanes from which on whole cache lines are worth a block more.
static constexpr int64_t kWorthAligning = 16384;

void BlockRunner::run_all(int64_t begin, int64_t end) {
  int64_t next = begin;
  if (!outputs_.empty() && end - begin >= kWorthAligning) {
    next += lanes_to_line(outputs_[0], begin);
  }
  if (next > begin) {
    run(begin, next - begin);
  }
  for (; next < end; next += block_lanes_) {
    run(next, std::min(block_lanes_, end - next));
  }
}

Lanes BlockRunner::padded_output(int k, int64_t count, float value) {
  auto lanes = runner_.output(k);
  const int64_t padded = whole_groups(count);
  if (padded == count) {
    return lanes;
  }
  spare_.resize(static_cast<size_t>(block_lanes_));
  for (int64_t i = 0; i < padded; i += kGroup) {
    std::copy_n(
        lanes.data + i / kGroup * lanes.stride, kGroup, spare_.data() + i);
  }
  std::fill(spare_.begin() + count, spare_.begin() + padded, value);
  return {spare_.data(), kGroup};
}

} // namespace zmlx::cpu
