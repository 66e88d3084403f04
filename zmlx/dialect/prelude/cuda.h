// SPDX-License-Identifier: MIT
// Thread positions, barriers, SIMD-group functions and atomics of the Metal
// dialect in CUDA. A SIMD-group is a warp; its functions must be reached by all
// of its threads that have not returned.
#pragma once

namespace metal {

template <class Dim>
ZM_INLINE uint3 zm_uint3(Dim d) {
  return uint3(d.x, d.y, d.z);
}
ZM_INLINE uint3 zm_thread_position_in_grid() {
  return zm_uint3(blockIdx) * zm_uint3(blockDim) + zm_uint3(threadIdx);
}
ZM_INLINE uint zm_thread_index() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
ZM_INLINE uint3 zm_threads_per_threadgroup(uint3 grid) {
  return min(
      zm_uint3(blockDim), grid - zm_uint3(blockIdx) * zm_uint3(blockDim));
}

ZM_INLINE void threadgroup_barrier(mem_flags = mem_flags::mem_none, int = 0) {
  __syncthreads();
}
ZM_INLINE void simdgroup_barrier(mem_flags = mem_flags::mem_none) {
  __syncwarp();
}

// The lanes that take part: all that exist and have not returned.
ZM_INLINE uint zm_lanes() {
  __syncwarp();
  return __activemask();
}
ZM_INLINE int zm_lane() {
  return zm_thread_index() % 32;
}

// Any type, word by word.
template <class T>
ZM_INLINE T zm_read_lane(uint mask, T value, int lane) {
  constexpr int words = (sizeof(T) + 3) / 4;
  uint bits[words] = {};
  memcpy(bits, &value, sizeof(T));
  for (int i = 0; i < words; ++i)
    bits[i] = __shfl_sync(mask, bits[i], lane);
  memcpy(&value, bits, sizeof(T));
  return value;
}

template <class Op, class T, int Width>
ZM_INLINE T zm_reduce(T value) {
  const uint mask = zm_lanes();
  const int lane = zm_lane();
  if (mask == ~0u) {
    for (int o = Width / 2; o > 0; o /= 2)
      value = Op::of(value, zm_read_lane(mask, value, lane ^ o));
    return value;
  }
  // With lanes missing, in their order.
  T total = value;
  bool first = true;
  for (int from = 0; from < 32; ++from) {
    if (!(mask >> from & 1))
      continue;
    const T other = zm_read_lane(mask, value, from);
    if (from / Width == lane / Width) {
      total = first ? other : Op::of(total, other);
      first = false;
    }
  }
  return total;
}

template <class Op, class T, bool Inclusive>
ZM_INLINE T zm_prefix(T value) {
  const uint mask = zm_lanes();
  const int lane = zm_lane();
  const T identity = T(is_same_v<Op, zm_add> ? 0 : 1);
  if (mask == ~0u) {
    for (int o = 1; o < 32; o *= 2) {
      const T other = zm_read_lane(mask, value, lane >= o ? lane - o : lane);
      value = lane >= o ? Op::of(other, value) : value;
    }
    if (Inclusive)
      return value;
    const T before = zm_read_lane(mask, value, lane > 0 ? lane - 1 : 0);
    return lane > 0 ? before : identity;
  }
  T total = identity;
  bool first = true;
  for (int from = 0; from < 32; ++from) {
    if (!(mask >> from & 1))
      continue;
    const T other = zm_read_lane(mask, value, from);
    if (from < lane + (Inclusive ? 1 : 0)) {
      total = first ? other : Op::of(total, other);
      first = false;
    }
  }
  return total;
}

template <class T, zm_move Move, int Width>
ZM_INLINE T zm_shuffle(T value, int arg) {
  const uint mask = zm_lanes();
  const int from = zm_source(Move, zm_lane(), arg, Width);
  const T other = zm_read_lane(mask, value, from);
  return mask >> from & 1 ? other : value;
}

template <class T, zm_move Move, zm_move Rotate>
ZM_INLINE T zm_shuffle_fill(T value, T filling, int arg) {
  const uint mask = zm_lanes();
  const int lane = zm_lane();
  const int from = zm_source(Move, lane, arg, 32);
  const int around = zm_source(Rotate, lane, arg, 32);
  const T inside = zm_read_lane(mask, value, from);
  const T outside = zm_read_lane(mask, filling, around);
  if (from == lane && arg != 0)
    return mask >> around & 1 ? outside : filling;
  return mask >> from & 1 ? inside : value;
}

#define ZM_REDUCTION(name, Op)          \
  template <class T>                    \
  ZM_INLINE T simd_##name(T value) {    \
    return zm_reduce<Op, T, 32>(value); \
  }                                     \
  template <class T>                    \
  ZM_INLINE T quad_##name(T value) {    \
    return zm_reduce<Op, T, 4>(value);  \
  }
ZM_REDUCTIONS(ZM_REDUCTION)
#undef ZM_REDUCTION

#define ZM_PREFIX(name, Op, Inclusive)         \
  template <class T>                           \
  ZM_INLINE T simd_prefix_##name(T value) {    \
    return zm_prefix<Op, T, Inclusive>(value); \
  }
ZM_PREFIXES(ZM_PREFIX)
#undef ZM_PREFIX

#define ZM_SHUFFLE(name, move)                   \
  template <class T>                             \
  ZM_INLINE T simd_##name(T value, ushort arg) { \
    return zm_shuffle<T, move, 32>(value, arg);  \
  }                                              \
  template <class T>                             \
  ZM_INLINE T quad_##name(T value, ushort arg) { \
    return zm_shuffle<T, move, 4>(value, arg);   \
  }
ZM_SHUFFLES(ZM_SHUFFLE)
#undef ZM_SHUFFLE

template <class T>
ZM_INLINE T simd_shuffle_and_fill_up(T value, zm_same<T> filling, ushort arg) {
  return zm_shuffle_fill<T, zm_up, zm_rotate_up>(value, filling, arg);
}
template <class T>
ZM_INLINE T
simd_shuffle_and_fill_down(T value, zm_same<T> filling, ushort arg) {
  return zm_shuffle_fill<T, zm_down, zm_rotate_down>(value, filling, arg);
}
ZM_INLINE simd_vote simd_ballot(bool value) {
  const uint mask = zm_lanes();
  return {__ballot_sync(mask, value), mask};
}
ZM_INLINE bool simd_all(bool value) {
  return __all_sync(zm_lanes(), value);
}
ZM_INLINE bool simd_any(bool value) {
  return __any_sync(zm_lanes(), value);
}
ZM_INLINE simd_vote simd_active_threads_mask() {
  return {zm_lanes(), ~0u};
}
ZM_INLINE bool simd_is_first() {
  return zm_lane() == __ffs(zm_lanes()) - 1;
}
template <class T>
ZM_INLINE T simd_broadcast_first(T value) {
  const uint mask = zm_lanes();
  return zm_read_lane(mask, value, __ffs(mask) - 1);
}

// d = a b + c, each sum in the order of its terms.
template <class D, class A, class B, class C>
ZM_INLINE void simdgroup_multiply_accumulate(
    simdgroup_matrix<D>& d,
    const simdgroup_matrix<A>& a,
    const simdgroup_matrix<B>& b,
    const simdgroup_matrix<C>& c) {
  const uint mask = zm_lanes();
  const int row = zm_matrix_row(zm_lane()),
            column = zm_matrix_column(zm_lane());
  const float2 x(a.zm_elements), y(b.zm_elements);
  float2 sum(c.zm_elements);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const int from = zm_matrix_lane(k, column);
    const float left =
        __shfl_sync(mask, k & 1 ? x.y : x.x, zm_matrix_lane(row, k));
    sum.x = fma(left, __shfl_sync(mask, y.x, from), sum.x);
    sum.y = fma(left, __shfl_sync(mask, y.y, from), sum.y);
  }
  d.zm_elements = vec<D, 2>(sum);
}
template <class D, class A, class B>
ZM_INLINE void simdgroup_multiply(
    simdgroup_matrix<D>& d,
    const simdgroup_matrix<A>& a,
    const simdgroup_matrix<B>& b) {
  simdgroup_multiply_accumulate(
      d, a, b, make_filled_simdgroup_matrix<float>(0.0f));
}

// Replaces a value of 1, 2, 4 or 8 bytes by f of it; returns what was there.
template <class T, class F>
ZM_INLINE T zm_atomic_update(T* p, F f) {
  if constexpr (sizeof(T) == 8) {
    using Word = unsigned long long;
    Word old = *(volatile Word*)p, seen;
    do {
      seen = old;
      old = atomicCAS((Word*)p, seen, as_type<Word>(T(f(as_type<T>(seen)))));
    } while (old != seen);
    return as_type<T>(old);
  } else if constexpr (sizeof(T) == 4) {
    uint old = *(volatile uint*)p, seen;
    do {
      seen = old;
      old = atomicCAS((uint*)p, seen, as_type<uint>(T(f(as_type<T>(seen)))));
    } while (old != seen);
    return as_type<T>(old);
  } else {
    // Inside of the word that holds it.
    using Part = conditional_t<sizeof(T) == 1, uchar, ushort>;
    uint* word = (uint*)((uintptr_t)p & ~uintptr_t(3));
    const int shift = 8 * int((uintptr_t)p & 3);
    const uint mask = (sizeof(T) == 1 ? 0xffu : 0xffffu) << shift;
    uint old = *(volatile uint*)word, seen;
    do {
      seen = old;
      const Part next = as_type<Part>(T(f(as_type<T>(Part(seen >> shift)))));
      old = atomicCAS(word, seen, (seen & ~mask) | uint(next) << shift);
    } while (old != seen);
    return as_type<T>(Part(old >> shift));
  }
}

// What comes before a release or after an acquire is seen by the device.
ZM_INLINE void zm_fence_before(int order) {
  if (order >= memory_order_release)
    __threadfence();
}
ZM_INLINE void zm_fence_after(int order) {
  if (order != memory_order_relaxed && order != memory_order_release)
    __threadfence();
}
ZM_INLINE void atomic_thread_fence(mem_flags, int = 0, int = 0) {
  __threadfence();
}

template <class P>
using zm_atomic_value =
    remove_cv_t<remove_reference_t<decltype(P()->zm_value)>>;
template <class P>
ZM_INLINE auto zm_target(P p) {
  return (zm_atomic_value<P>*)&p->zm_value;
}
template <class P>
ZM_INLINE zm_atomic_value<P> atomic_load_explicit(P p, int order = 0, int = 0) {
  using T = zm_atomic_value<P>;
  T value = *(volatile T*)zm_target(p);
  zm_fence_after(order);
  return value;
}
template <class P>
ZM_INLINE void
atomic_store_explicit(P p, zm_atomic_value<P> value, int order = 0, int = 0) {
  using T = zm_atomic_value<P>;
  zm_fence_before(order);
  *(volatile T*)zm_target(p) = value;
}
#define ZM_ATOMIC(name, expression, native, ...)               \
  template <class P>                                           \
  ZM_INLINE zm_atomic_value<P> atomic_##name##_explicit(       \
      P p, zm_atomic_value<P> value, int order = 0, int = 0) { \
    using T = zm_atomic_value<P>;                              \
    zm_fence_before(order);                                    \
    T result;                                                  \
    if constexpr (native) {                                    \
      result = __VA_ARGS__;                                    \
    } else {                                                   \
      result = zm_atomic_update(                               \
          zm_target(p), [=](T old) { return T(expression); }); \
    }                                                          \
    zm_fence_after(order);                                     \
    return result;                                             \
  }
#define ZM_INT_ATOMIC (is_same_v<T, int> || is_same_v<T, uint>)
ZM_ATOMIC(exchange, value, ZM_INT_ATOMIC, atomicExch(zm_target(p), value))
ZM_ATOMIC(
    fetch_add,
    old + value,
    (ZM_INT_ATOMIC || is_same_v<T, float>),
    atomicAdd(zm_target(p), value))
ZM_ATOMIC(fetch_sub, old - value, ZM_INT_ATOMIC, atomicSub(zm_target(p), value))
ZM_ATOMIC(
    fetch_min,
    min(old, value),
    ZM_INT_ATOMIC,
    atomicMin(zm_target(p), value))
ZM_ATOMIC(
    fetch_max,
    max(old, value),
    ZM_INT_ATOMIC,
    atomicMax(zm_target(p), value))
ZM_ATOMIC(fetch_and, old& value, ZM_INT_ATOMIC, atomicAnd(zm_target(p), value))
ZM_ATOMIC(fetch_or, old | value, ZM_INT_ATOMIC, atomicOr(zm_target(p), value))
ZM_ATOMIC(fetch_xor, old ^ value, ZM_INT_ATOMIC, atomicXor(zm_target(p), value))
#undef ZM_INT_ATOMIC
#undef ZM_ATOMIC
template <class P>
ZM_INLINE bool atomic_compare_exchange_weak_explicit(
    P p,
    zm_atomic_value<P>* expected,
    zm_atomic_value<P> desired,
    int order = 0,
    int = 0,
    int = 0) {
  using T = zm_atomic_value<P>;
  const T want = *expected;
  zm_fence_before(order);
  const T old = zm_atomic_update(
      zm_target(p), [=](T now) { return now == want ? desired : now; });
  zm_fence_after(order);
  *expected = old;
  return old == want;
}

} // namespace metal
