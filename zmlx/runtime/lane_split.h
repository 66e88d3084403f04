// SPDX-License-Identifier: MIT
// Splits work on lanes over the thread team.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "mlx/mlx.h"
#include "zmlx/runtime/lane_block.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::cpu {

/// Lanes times steps below which waking other threads costs more than it saves.
inline constexpr int64_t kWorkForTeam = 1 << 16;

/// Calls run(worker, part) for part = 0 .. parts - 1, each once, on whichever
/// thread is free; make() builds a thread's worker. `work` is lanes times
/// steps.
template <class Make, class Run>
void for_each_part(
    int64_t parts,
    int64_t work,
    const Make& make,
    const Run& run) {
  if (parts == 1 || work < kWorkForTeam) {
    auto worker = make();
    for (int64_t part = 0; part < parts; ++part) {
      run(worker, part);
    }
    return;
  }
  std::atomic<int64_t> next{0};
  thread_team()->run([&](int) {
    int64_t part = next.fetch_add(1, std::memory_order_relaxed);
    if (part >= parts) {
      return;
    }
    auto worker = make();
    for (; part < parts; part = next.fetch_add(1, std::memory_order_relaxed)) {
      run(worker, part);
    }
  });
}

/// How outputs of these arrays are best stored.
Store choose_store(
    const std::vector<mx::array>& inputs,
    const std::vector<mx::array>& outputs);

} // namespace zmlx::cpu
