// SPDX-License-Identifier: MIT
// The checked mode of the host: pointers that know their array. An access that
// is not allowed is reported, then reads or writes a place of its own.
#pragma once

namespace metal {

/// The index of p[i] with the author's line; zm_to where p[i] is written.
struct zm_index {
  long value;
  int line;
  bool written;
  constexpr operator long() const {
    return value;
  }
};
template <class I>
ZM_INLINE constexpr zm_index zm_at(I i, int line = __builtin_LINE()) {
  return {long(i), line, false};
}
template <class I>
ZM_INLINE constexpr zm_index zm_to(I i, int line = __builtin_LINE()) {
  return {long(i), line, true};
}

// What a pointer may touch.
struct zm_region {
  const char* begin;
  long bytes; // negative: not known, so not checked
  const char* name;
  char* written; // a flag for each byte, where reading unwritten ones is wrong
};

template <class T>
static ZM_INLINE T& zm_sink() {
  alignas(64) static thread_local char sink[sizeof(T)];
  memset(sink, 0, sizeof sink);
  return *(T*)sink;
}

// The array that holds an address, when all that is left is the address.
static zm_region zm_region_of(const void* address) {
  const char* at = (const char*)address;
  const zm_launch* launch = zm_me.launch;
  for (int i = 0; launch && i < launch->num_buffers; ++i) {
    const zm_buffer& buffer = launch->buffers[i];
    if (at >= (char*)buffer.data && at < (char*)buffer.data + buffer.bytes)
      return {(char*)buffer.data, buffer.bytes, "an array", nullptr};
  }
  for (const zm_group_array& array : zm_me.arrays)
    if (array.data && at >= array.data && at < array.data + array.bytes)
      return {array.data, array.bytes, "threadgroup memory", array.written};
  return {nullptr, -1, "", nullptr};
}

template <class T>
ZM_INLINE bool
zm_allowed(const T* at, zm_index index, const zm_region& region) {
  zm_me.line = index.line;
  if (region.bytes < 0)
    return true;
  const long offset = (const char*)at - region.begin;
  if (offset < 0 || offset + long(sizeof(T)) > region.bytes) {
    const long size = sizeof(T);
    zm_report(
        zm_out_of_bounds,
        index.line,
        offset >= 0 ? offset / size : -((-offset + size - 1) / size),
        region.bytes / size,
        region.name);
    return false;
  }
  if (offset % alignof(T))
    zm_report(zm_misaligned, index.line, offset, alignof(T), region.name);
  if (region.written) {
    char* flags = region.written + offset;
    bool whole = true;
    for (unsigned long i = 0; i < sizeof(T); ++i) {
      whole &= flags[i];
      flags[i] = flags[i] || index.written;
    }
    if (!whole && !index.written) {
      zm_report(
          zm_unwritten_read,
          index.line,
          offset / long(sizeof(T)),
          region.bytes / long(sizeof(T)),
          region.name);
      memset(flags, 1, sizeof(T)); // once is enough
    }
  }
  return true;
}

template <class T>
struct zm_pointer {
  using zm_value = T;
  T* at = nullptr;
  zm_region region = {nullptr, -1, "", nullptr};

  zm_pointer() = default;
  zm_pointer(T* raw, zm_region region) : at(raw), region(region) {}
  zm_pointer(decltype(nullptr)) {}
  zm_pointer(T* raw) : at(raw), region(zm_region_of(raw)) {}
  operator zm_pointer<const T>() const
    requires(!is_same_v<T, const T>)
  {
    return {at, region};
  }
  template <class U>
  explicit zm_pointer(zm_pointer<U> other)
      : at((T*)other.at), region(other.region) {}
  explicit operator bool() const {
    return at != nullptr;
  }

  T& operator[](zm_index index) const {
    T* p = (T*)((char*)at + index.value * long(sizeof(T)));
    return zm_allowed(p, index, region) ? *p : zm_sink<T>();
  }
  T& operator[](long index) const {
    return (*this)[zm_index{index, zm_me.line, true}];
  }
  T& operator*() const {
    return (*this)[0L];
  }
  T* operator->() const {
    return &(*this)[0L];
  }

  zm_pointer& operator+=(long n) {
    at = (T*)((char*)at + n * long(sizeof(T)));
    return *this;
  }
  zm_pointer& operator-=(long n) {
    return *this += -n;
  }
  zm_pointer operator+(long n) const {
    return zm_pointer(*this) += n;
  }
  friend zm_pointer operator+(long n, zm_pointer p) {
    return p += n;
  }
  zm_pointer operator-(long n) const {
    return zm_pointer(*this) += -n;
  }
  long operator-(zm_pointer o) const {
    return at - o.at;
  }
  zm_pointer& operator++() {
    return *this += 1;
  }
  zm_pointer& operator--() {
    return *this += -1;
  }
  zm_pointer operator++(int) {
    zm_pointer old = *this;
    *this += 1;
    return old;
  }
  zm_pointer operator--(int) {
    zm_pointer old = *this;
    *this += -1;
    return old;
  }
  friend bool operator==(zm_pointer a, zm_pointer b) {
    return a.at == b.at;
  }
  friend bool operator<(zm_pointer a, zm_pointer b) {
    return a.at < b.at;
  }
  friend bool operator>(zm_pointer a, zm_pointer b) {
    return a.at > b.at;
  }
  friend bool operator<=(zm_pointer a, zm_pointer b) {
    return a.at <= b.at;
  }
  friend bool operator>=(zm_pointer a, zm_pointer b) {
    return a.at >= b.at;
  }
};

// Rows of a two-dimensional array: each row is a region of its own.
template <class U, unsigned long N>
struct zm_pointer<U[N]> {
  using Row = U[N];
  Row* at;
  zm_region region;
  auto operator[](zm_index index) const {
    zm_index row = index;
    row.written = true; // the element is what is read
    zm_region whole = region;
    whole.written = nullptr;
    Row* p = (Row*)((char*)at + index.value * long(sizeof(Row)));
    const bool good = zm_allowed(p, row, whole);
    p = good ? p : at;
    char* flags =
        region.written ? region.written + ((char*)p - region.begin) : nullptr;
    return zm_pointer<U>(
        &(*p)[0], {(char*)p, long(sizeof(Row)), region.name, flags});
  }
  auto operator[](long index) const {
    return (*this)[zm_index{index, zm_me.line, true}];
  }
  auto operator*() const {
    return (*this)[0L];
  }
  zm_pointer operator+(long n) const {
    return {at + n, region};
  }
};

template <class P, class T>
ZM_INLINE P zm_pointer_cast(zm_pointer<T> p) {
  return P(p);
}
template <class P, class T>
ZM_INLINE P zm_pointer_cast(T* p) {
  return P((typename P::zm_value*)p);
}
template <class P>
ZM_INLINE P zm_pointer_cast(uintptr_t p) {
  return P((typename P::zm_value*)p);
}

template <class T>
ZM_INLINE zm_pointer<T> zm_buffer_pointer(
    const zm_buffer& b,
    const char* name) {
  return {(T*)b.data, {(char*)b.data, b.bytes, name, nullptr}};
}
template <class T>
ZM_INLINE zm_pointer<T> zm_extent_pointer(T* p, int count, const char* name) {
  return {p, {(char*)p, count * long(sizeof(T)), name, nullptr}};
}

// T is an array; the flags of what was written lie behind the memory.
template <class T>
ZM_INLINE auto zm_checked_threadgroup(int number, const char* name) {
  T& all = zm_threadgroup<T>(number);
  zm_group_array& array = zm_me.arrays[number];
  if (!array.written) {
    array.written = zm_me.written + ((char*)&all - zm_me.memory);
    memset(array.written, 0, sizeof(T));
  }
  using Element = remove_reference_t<decltype(all[0])>;
  return zm_pointer<Element>{
      &all[0], {(char*)&all, long(sizeof(T)), name, array.written}};
}

template <class T>
ZM_INLINE T* zm_checked_atomic(zm_pointer<T> p, int line) {
  return &p[zm_index{0, line, true}];
}
template <class T>
ZM_INLINE T* zm_checked_atomic(T* p, int) {
  return p;
}

} // namespace metal
