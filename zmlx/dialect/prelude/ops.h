// SPDX-License-Identifier: MIT
// What the threads of a SIMD-group compute together, on 32 values at once: the
// meaning of simd_* and quad_*, shared by the host (where it runs) and by CUDA
// (whose shuffles give the same order of operations).
#pragma once

namespace metal {

enum class mem_flags : uint {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
  mem_object_data = 16
};
ZM_INLINE constexpr mem_flags operator|(mem_flags a, mem_flags b) {
  return mem_flags(uint(a) | uint(b));
}
enum memory_order : int {
  memory_order_relaxed = 0,
  memory_order_acquire = 2,
  memory_order_release = 3,
  memory_order_acq_rel = 4,
  memory_order_seq_cst = 5
};
enum thread_scope : int {
  thread_scope_thread,
  thread_scope_simdgroup,
  thread_scope_threadgroup,
  thread_scope_device,
  thread_scope_system
};

struct zm_add {
  template <class T>
  static ZM_INLINE T of(T a, T b) {
    return T(a + b);
  }
};
struct zm_multiply {
  template <class T>
  static ZM_INLINE T of(T a, T b) {
    return T(a * b);
  }
};
struct zm_least {
  template <class T>
  static ZM_INLINE T of(T a, T b) {
    return min(a, b);
  }
};
struct zm_greatest {
  template <class T>
  static ZM_INLINE T of(T a, T b) {
    return max(a, b);
  }
};
struct zm_bit_and {
  template <class T>
  static ZM_INLINE T of(T a, T b) {
    return T(a & b);
  }
};
struct zm_bit_or {
  template <class T>
  static ZM_INLINE T of(T a, T b) {
    return T(a | b);
  }
};
struct zm_bit_xor {
  template <class T>
  static ZM_INLINE T of(T a, T b) {
    return T(a ^ b);
  }
};

// Lane that a lane reads from; itself where that one does not exist.
enum zm_move {
  zm_to_lane,
  zm_by_xor,
  zm_up,
  zm_down,
  zm_rotate_up,
  zm_rotate_down
};
ZM_INLINE int zm_source(zm_move move, int lane, int arg, int width) {
  const int base = lane & ~(width - 1), at = lane & (width - 1);
  const int from = move == zm_to_lane ? arg
      : move == zm_by_xor             ? at ^ arg
      : move == zm_up                 ? at - arg
      : move == zm_down               ? at + arg
      : move == zm_rotate_up          ? (at - arg) & (width - 1)
                                      : (at + arg) & (width - 1);
  return from < 0 || from >= width ? lane : base + from;
}

ZM_INLINE constexpr uint zm_volume(uint3 size) {
  return size.x * size.y * size.z;
}

template <class T>
struct atomic {
  T zm_value;
  atomic() = default;
  constexpr atomic(T value) : zm_value(value) {}
};
using atomic_int = atomic<int>;
using atomic_uint = atomic<uint>;
using atomic_bool = atomic<bool>;
using atomic_float = atomic<float>;
using atomic_ulong = atomic<ulong>;

/// What simd_ballot returns: one bit for each thread.
struct simd_vote {
  using vote_t = ulong;
  vote_t zm_bits;
  ulong zm_active;
  explicit ZM_INLINE operator vote_t() const {
    return zm_bits;
  }
  ZM_INLINE bool all() const {
    return zm_bits == zm_active;
  }
  ZM_INLINE bool any() const {
    return zm_bits != 0;
  }
};

// The functions of a SIMD-group that differ in their operation only.
#define ZM_REDUCTIONS(F)  \
  F(sum, zm_add)          \
  F(product, zm_multiply) \
  F(min, zm_least)        \
  F(max, zm_greatest)     \
  F(and, zm_bit_and)      \
  F(or, zm_bit_or)        \
  F(xor, zm_bit_xor)
#define ZM_PREFIXES(F)                    \
  F(inclusive_sum, zm_add, true)          \
  F(exclusive_sum, zm_add, false)         \
  F(inclusive_product, zm_multiply, true) \
  F(exclusive_product, zm_multiply, false)
#define ZM_SHUFFLES(F)               \
  F(shuffle, zm_to_lane)             \
  F(broadcast, zm_to_lane)           \
  F(shuffle_xor, zm_by_xor)          \
  F(shuffle_up, zm_up)               \
  F(shuffle_down, zm_down)           \
  F(shuffle_rotate_up, zm_rotate_up) \
  F(shuffle_rotate_down, zm_rotate_down)

} // namespace metal
