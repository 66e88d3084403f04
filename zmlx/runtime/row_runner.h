// SPDX-License-Identifier: MIT
// Runs a row program row after row, the lanes of a block being values of one
// row.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "zmlx/dialect/row_program.h"
#include "zmlx/runtime/lane_block.h"

namespace zmlx::cpu {

/// The programs of a row program. Row inputs and totals are uniform, or one
/// value for each lane.
struct RowPlan {
  RowPlan(const dialect::RowProgram& program, bool uniform_rows);

  dialect::RowProgram program;
  std::vector<LaneProgram> passes;
  LaneProgram write, finish;

  /// With uniform rows: a pass that also gives a value of each element, and a
  /// write that takes that after the elements.
  struct Kept {
    int pass;
    LaneProgram values, write;
  };
  std::optional<Kept> kept;
};

/// Values of a row that are kept from a pass at most; they stay in the
/// second-level cache.
inline constexpr int64_t kMostKept = 1 << 16;

/// The arrays of one run, numbered as the runner walks them.
struct RowProblem {
  int64_t rows, length;
  std::vector<LaneArray> elements, row_values, element_outputs, row_outputs;
  Store store;
};

/// Values of a row that are combined in single precision before their total is
/// added to those of the values before; a power of two.
inline constexpr int64_t kChunk = 16384;

/// Whether a pass reads its own totals in the order of the row.
bool has_serial(const dialect::RowPass& pass);

/// What leaves other operands of a combination as they are.
float identity(dialect::Combine combine);
/// x and y combined.
double combined(dialect::Combine combine, double x, double y);

/// One thread's. No pass is Serial.
class RowRunner {
 public:
  /// whole_rows: only run_rows() will be called.
  RowRunner(const RowPlan& plan, const RowProblem& problem, bool whole_rows);

  /// Everything for `count` <= kGroup rows.
  void run_rows(int64_t begin, int64_t count);

  // The same in pieces, for rows that several threads share.
  /// Takes up a row; none of its totals is known.
  void start(int64_t row);
  /// Combines a chunk of the row for each reduction of a pass.
  void reduce_chunk(int pass, int64_t chunk, float* partials);
  /// Adds the total of the next reduction.
  void add_total(float total) {
    totals_.push_back(total);
  }
  void write_chunk(int64_t chunk);
  /// Writes the row's finish outputs.
  void finish();

 private:
  void set_uniforms(BlockRunner& runner, int first);
  void run_passes();
  void finish_rows(int64_t begin, int64_t count);

  const RowPlan& plan_;
  const RowProblem& problem_;
  std::vector<BlockRunner> passes_, write_; // write_: one, or none
  LaneRunner finish_;
  int64_t row_ = 0;
  std::vector<float> row_values_, totals_; // of the row at hand
  int kept_pass_ = -1;
  std::vector<float> kept_; // a value of each element, from that pass
  std::vector<std::array<float, kGroup>> sums_; // of a chunk
  std::vector<float> finish_inputs_; // kGroup lanes for each input of finish
};

/// Rounds the partials of all chunks (one after the other, `stride` apart) to
/// the total.
float total(
    const dialect::Reduction& reduction,
    const float* partials,
    int64_t chunks,
    int64_t stride);

} // namespace zmlx::cpu
