// SPDX-License-Identifier: MIT
#include "zmlx/base/huge_pages.h"

#include <algorithm>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace zmlx {

#ifdef __linux__

size_t
move_to_huge_pages(const void* data, size_t size, const std::stop_token& stop) {
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  constexpr size_t kAtOnce = 32 * kHuge;
  // Linux 6.1; older headers do not name it.
  constexpr int kCollapse = 25;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kHuge - 1) / kHuge * kHuge;
  const uintptr_t end = (begin + size) / kHuge * kHuge;
  size_t done = 0;
  for (uintptr_t at = first; at < end && !stop.stop_requested();) {
    const size_t length = std::min<size_t>(kAtOnce, end - at);
    auto* const place = reinterpret_cast<void*>(at);
    if (madvise(place, length, MADV_HUGEPAGE) != 0 ||
        madvise(place, length, kCollapse) != 0) {
      break;
    }
    done += length;
    at += length;
  }
  return done;
}

#else

size_t move_to_huge_pages(const void*, size_t, const std::stop_token&) {
  return 0;
}

#endif

} // namespace zmlx
