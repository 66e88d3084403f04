// SPDX-License-Identifier: MIT
// Vectors whose storage starts on a cache line.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace zmlx {

template <class T>
struct CacheLineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{64};

  CacheLineAllocator() = default;
  template <class U>
  CacheLineAllocator(const CacheLineAllocator<U>&) {}

  T* allocate(size_t count) {
    return static_cast<T*>(::operator new(count * sizeof(T), kAlignment));
  }
  void deallocate(T* pointer, size_t) {
    ::operator delete(pointer, kAlignment);
  }
  bool operator==(const CacheLineAllocator&) const {
    return true;
  }
};

template <class T>
using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

} // namespace zmlx
