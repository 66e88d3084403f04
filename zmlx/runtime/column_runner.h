// SPDX-License-Identifier: MIT
// Runs a row program on many rows side by side, each lane of a block being a
// row: for rows that lie across memory, and for reductions in order.
#pragma once

#include <cstdint>
#include <vector>

#include "zmlx/runtime/row_runner.h"

namespace zmlx::cpu {

/// Positions along rows that one thread reduces at a time.
inline constexpr int64_t kColumnChunk = 256;

/// One thread's. Lanes of the problem's elements are numbered position by
/// position: lane i * rows + r is value i of row r.
class ColumnRunner {
 public:
  /// lanes: rows side by side at most, a multiple of kGroup.
  ColumnRunner(const RowPlan& plan, const RowProblem& problem, int64_t lanes);

  /// Everything for `count` <= lanes rows.
  void run_rows(int64_t begin, int64_t count);

  // The same in pieces, for rows that several threads share.
  /// Takes up rows; none of their totals is known.
  void start(int64_t begin, int64_t count);
  /// Combines a chunk of positions; partials: `lanes` values for each
  /// reduction. Chunks of a pass with a Serial reduction come in order.
  void reduce_chunk(int pass, int64_t chunk, double* partials);
  /// Takes the totals of a pass: partials of all chunks.
  void add_totals(int pass, const double* partials);
  void write_chunk(int64_t chunk);
  void finish();

 private:
  void set_rows(LaneRunner& runner, int first);
  void begin_chunk(int pass, double* partials);
  void combine_position(int pass);
  void accumulate(int pass, double* partials);

  const RowPlan& plan_;
  const RowProblem& problem_;
  const int64_t lanes_;
  std::vector<BlockRunner> passes_, write_; // write_: one, or none
  LaneRunner finish_;
  int64_t begin_ = 0, count_ = 0;
  // Lanes of each row input, total, and reduction of the pass at hand.
  std::vector<std::vector<float>> row_values_, totals_, running_, next_;
  std::vector<StepFunction> steps_; // that combine, one for each reduction
};

} // namespace zmlx::cpu
