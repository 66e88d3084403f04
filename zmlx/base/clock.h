// SPDX-License-Identifier: MIT
// A stopwatch, and runs of several sides interleaved in time.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace zmlx {

/// Seconds since it was made or last restarted, on the steady clock.
class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(Clock::now() - begin_).count();
  }
  void restart() {
    begin_ = Clock::now();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_ = Clock::now();
};

/// Calls run(side, round) for every side of every round, in the order
/// A B, B A, A B, ...: what the machine does meanwhile (clock changes,
/// neighbours) falls on all sides alike, and changes of side are halved.
/// Throws std::invalid_argument unless sides and rounds are at least 1.
void interleave(
    int sides,
    int rounds,
    const std::function<void(int side, int round)>& run);

/// The time now as "2025-01-31T23:59:59Z".
std::string utc_now();

} // namespace zmlx
