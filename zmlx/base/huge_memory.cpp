// SPDX-License-Identifier: MIT
#include "zmlx/base/huge_memory.h"

#include <cstdint>
#include <mutex>
#include <new>

#include <sys/mman.h>

namespace zmlx {
namespace {

constexpr size_t kHuge = size_t{2} << 20, kLine = 64;
// What is smaller is cut from a region of this size. Pages cost memory when
// they are first written.
constexpr size_t kRegion = size_t{64} << 20;

size_t rounded_up(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

/// A region that starts a huge page. The system is asked for as many as are
/// filled: what is left over stays in pages of the usual size, since a huge one
/// costs all of its memory.
class Region {
 public:
  explicit Region(size_t bytes) : size_(bytes + kHuge) {
    map_ = ::mmap(
        nullptr,
        size_,
        PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS,
        -1,
        0);
    if (map_ == MAP_FAILED) {
      throw std::bad_alloc();
    }
#ifdef MADV_HUGEPAGE
    // A refusal costs time only.
    ::madvise(data(), bytes / kHuge * kHuge, MADV_HUGEPAGE);
#endif
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() {
    ::munmap(map_, size_);
  }
  char* data() const {
    const auto address = reinterpret_cast<uintptr_t>(map_);
    return static_cast<char*>(map_) + (rounded_up(address, kHuge) - address);
  }

 private:
  void* map_;
  size_t size_;
};

std::mutex mutex;
std::weak_ptr<Region> shared_region;
size_t shared_used = 0;

} // namespace

std::shared_ptr<char> huge_memory(size_t bytes) {
  bytes = rounded_up(bytes, kLine);
  if (bytes >= kRegion / 2) {
    auto own = std::make_shared<Region>(bytes);
    char* const data = own->data();
    return {std::move(own), data};
  }
  std::lock_guard lock(mutex);
  auto region = shared_region.lock();
  if (!region || shared_used + bytes > kRegion) {
    region = std::make_shared<Region>(kRegion);
    shared_region = region;
    shared_used = 0;
  }
  char* const data = region->data() + shared_used;
  shared_used += bytes;
  return {std::move(region), data};
}

} // namespace zmlx
