// SPDX-License-Identifier: MIT
// The start of the next step, before its token is known.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "zmlx/model/decode/cpu_workspace.h"

namespace zmlx::decode {

/// Between two steps MLX chooses a token, on one thread: log-sum-exp,
/// difference and argmax of 65536 logits take 2 ms. The others begin the next
/// step meanwhile with the likeliest token, up to the first stage that needs a
/// cache of keys or cannot be begun twice. Nothing of it is seen: what
/// convolutions remember is written to copies, and a step that turns out to
/// have another token or another cache starts anew.
class Lookahead : public ThreadTeam::After {
 public:
  /// Stages and what follows each, as the executor runs them.
  Lookahead(
      const Program& program,
      Workspace& work,
      const std::vector<CpuStagePtr>& stages,
      const std::vector<const CpuStage*>& next);

  /// Keeps what a step leaves for the next one's first stages. Called by one
  /// thread of the team, before the last barrier of the step.
  void keep(ThreadTeam& team);

  /// The stage from which on a step that so many threads will run is left to
  /// do, and brings its caches there; 0: all of it, of which nothing is done.
  /// Threads must have been called back.
  size_t take(const Step& step, int threads);

  /// Forgets what was begun: no step can go on from there. Likewise.
  void drop();

  void run(int thread) override;

 private:
  /// What a convolution of the first stages remembers.
  struct Memory {
    size_t stage, layer;
    std::vector<float> before, after;
  };

  bool agrees(const Step& step, int threads) const;

  Workspace& work_;
  const std::vector<CpuStagePtr>& stages_;
  const std::vector<const CpuStage*>& next_;
  size_t end_ = 0; // of the first stages
  std::vector<Memory> memories_;

  ThreadTeam* team_ = nullptr; // of the step before; null: nothing was kept
  int threads_ = 0; // its size
  int32_t token_ = -1; // that was guessed
  Step step_;
  size_t reached_ = 0; // the last stage begun
  int misses_ = 0; // in a row
};

} // namespace zmlx::decode
