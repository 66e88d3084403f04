// SPDX-License-Identifier: MIT
#include "zmlx/base/clock.h"

#include <ctime>

#include "zmlx/base/error.h"

namespace zmlx {

void interleave(
    int sides,
    int rounds,
    const std::function<void(int side, int round)>& run) {
  if (sides < 1 || rounds < 1) {
    invalid(
        "interleave",
        "sides and rounds must be at least 1, got ",
        sides,
        " and ",
        rounds,
        '.');
  }
  for (int round = 0; round < rounds; ++round) {
    for (int place = 0; place < sides; ++place) {
      run(round % 2 == 0 ? place : sides - 1 - place, round);
    }
  }
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

} // namespace zmlx
