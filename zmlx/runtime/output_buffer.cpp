// SPDX-License-Identifier: MIT
#include "zmlx/runtime/output_buffer.h"

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace zmlx {

mx::allocator::Data output_buffer(size_t bytes) {
  auto data = mx::allocator::malloc(bytes);
#if defined(__linux__)
  constexpr size_t kLarge = 4 << 20;
  constexpr uintptr_t kPage = 2 << 20;
  if (bytes >= kLarge) {
    auto buffer = data.buffer();
    const auto begin = reinterpret_cast<uintptr_t>(buffer.raw_ptr());
    const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
    const uintptr_t last = (begin + bytes) / kPage * kPage;
    // Only a hint: nothing is lost when it is refused.
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
  return data;
}

} // namespace zmlx
