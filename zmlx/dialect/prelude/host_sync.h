// SPDX-License-Identifier: MIT
// Barriers, SIMD-group functions and atomics on the host.
#pragma once

namespace metal {

// Without an argument for its line each function records the author's.
#define ZM_LINE int line = __builtin_LINE()

ZM_INLINE void
threadgroup_barrier(mem_flags = mem_flags::mem_none, int = 0, ZM_LINE) {
  zm_wait(zm_at_barrier, line);
}

ZM_INLINE int zm_lane() {
  return int((zm_me.self - zm_me.fibers) % zm_width);
}

// The lanes of `mask` exchange values that lie in their slots.
template <class T>
ZM_INLINE T& zm_slot(zm_fiber& fiber, int i = 0) {
  static_assert(
      2 * sizeof(T) <= sizeof fiber.slot,
      "too large for a SIMD-group function");
  return *(T*)(fiber.slot + i * sizeof(T));
}

using zm_meeting = void (*)(zm_fiber*, int, uint);

template <class T>
ZM_INLINE T zm_meet(T value, int arg, zm_meeting meeting, int line) {
  zm_fiber& self = *zm_me.self;
  zm_slot<T>(self) = value;
  self.arg = arg;
  self.meet = meeting;
  zm_wait(zm_at_simd, line);
  return zm_slot<T>(*zm_me.self);
}

#define ZM_EACH_LANE                       \
  for (int lane = 0; lane < count; ++lane) \
    if (mask >> lane & 1)

static void zm_meet_only(zm_fiber*, int, uint) {}

ZM_INLINE void simdgroup_barrier(mem_flags = mem_flags::mem_none, ZM_LINE) {
  zm_meet(0, 0, zm_meet_only, line);
}

// Pairs at distance 16, 8, 4, 2, 1, as CUDA's shuffles would do it; with lanes
// missing, in their order.
template <class Op, class T, int Width>
static void zm_meet_reduce(zm_fiber* first, int count, uint mask) {
  T v[zm_width], w[zm_width];
  if (count == zm_width && mask == ~0u) {
    for (int i = 0; i < zm_width; ++i)
      v[i] = zm_slot<T>(first[i]);
    for (int o = Width / 2; o > 0; o /= 2) {
      for (int i = 0; i < zm_width; ++i)
        w[i] = Op::of(v[i], v[i ^ o]);
      for (int i = 0; i < zm_width; ++i)
        v[i] = w[i];
    }
    for (int i = 0; i < zm_width; ++i)
      zm_slot<T>(first[i]) = v[i];
    return;
  }
  for (int base = 0; base < count; base += Width) {
    const uint part = mask >> base & (Width == 32 ? ~0u : (1u << Width) - 1);
    if (!part)
      continue;
    int lane = base + ctz(int(part));
    T total = zm_slot<T>(first[lane]);
    for (++lane; lane < base + Width && lane < count; ++lane)
      if (mask >> lane & 1)
        total = Op::of(total, zm_slot<T>(first[lane]));
    for (lane = base; lane < base + Width && lane < count; ++lane)
      if (mask >> lane & 1)
        zm_slot<T>(first[lane]) = total;
  }
}

template <class Op, class T, bool Inclusive>
static void zm_meet_prefix(zm_fiber* first, int count, uint mask) {
  T v[zm_width];
  int lanes[zm_width], n = 0;
  ZM_EACH_LANE {
    lanes[n] = lane;
    v[n++] = zm_slot<T>(first[lane]);
  }
  if (n == zm_width) {
    for (int o = 1; o < zm_width; o *= 2)
      for (int i = n - 1; i >= o; --i)
        v[i] = Op::of(v[i - o], v[i]);
  } else {
    for (int i = 1; i < n; ++i)
      v[i] = Op::of(v[i - 1], v[i]);
  }
  for (int i = 0; i < n; ++i) {
    T& out = zm_slot<T>(first[lanes[i]]);
    if (Inclusive)
      out = v[i];
    else
      out = i > 0 ? v[i - 1] : T(is_same_v<Op, zm_add> ? 0 : 1);
  }
}

template <class T, zm_move Move, int Width, bool Fill>
static void zm_meet_shuffle(zm_fiber* first, int count, uint mask) {
  T v[zm_width];
  ZM_EACH_LANE {
    const int from = zm_source(Move, lane, first[lane].arg, Width);
    const bool exists = from < count && mask >> from & 1;
    v[lane] = zm_slot<T>(first[exists ? from : lane]);
    if (Fill && from == lane && first[lane].arg != 0) {
      // Past the end: the filling of the lane that a rotation would read.
      const int other = zm_source(
          Move == zm_up ? zm_rotate_up : zm_rotate_down,
          lane,
          first[lane].arg,
          Width);
      v[lane] = zm_slot<T>(
          first[other < count && mask >> other & 1 ? other : lane], 1);
    }
  }
  ZM_EACH_LANE {
    zm_slot<T>(first[lane]) = v[lane];
  }
}

static void zm_meet_ballot(zm_fiber* first, int count, uint mask) {
  ulong bits = 0;
  ZM_EACH_LANE {
    bits |= ulong(zm_slot<ulong>(first[lane]) != 0) << lane;
  }
  ZM_EACH_LANE {
    zm_slot<ulong>(first[lane]) = bits;
    zm_slot<ulong>(first[lane], 1) = mask;
  }
}

static void zm_meet_first(zm_fiber* first, int count, uint mask) {
  const int leader = ctz(int(mask));
  ZM_EACH_LANE {
    if (lane != leader)
      memcpy(first[lane].slot, first[leader].slot, sizeof first[lane].slot);
    first[lane].arg = leader;
  }
}
#undef ZM_EACH_LANE

#define ZM_REDUCTION(name, Op)                                 \
  template <class T>                                           \
  ZM_INLINE T simd_##name(T value, ZM_LINE) {                  \
    return zm_meet(value, 0, zm_meet_reduce<Op, T, 32>, line); \
  }                                                            \
  template <class T>                                           \
  ZM_INLINE T quad_##name(T value, ZM_LINE) {                  \
    return zm_meet(value, 0, zm_meet_reduce<Op, T, 4>, line);  \
  }
ZM_REDUCTIONS(ZM_REDUCTION)
#undef ZM_REDUCTION

#define ZM_PREFIX(name, Op, Inclusive)                                \
  template <class T>                                                  \
  ZM_INLINE T simd_prefix_##name(T value, ZM_LINE) {                  \
    return zm_meet(value, 0, zm_meet_prefix<Op, T, Inclusive>, line); \
  }
ZM_PREFIXES(ZM_PREFIX)
#undef ZM_PREFIX

#define ZM_SHUFFLE(name, move)                                             \
  template <class T>                                                       \
  ZM_INLINE T simd_##name(T value, ushort arg, ZM_LINE) {                  \
    return zm_meet(value, arg, zm_meet_shuffle<T, move, 32, false>, line); \
  }                                                                        \
  template <class T>                                                       \
  ZM_INLINE T quad_##name(T value, ushort arg, ZM_LINE) {                  \
    return zm_meet(value, arg, zm_meet_shuffle<T, move, 4, false>, line);  \
  }
ZM_SHUFFLES(ZM_SHUFFLE)
#undef ZM_SHUFFLE

#define ZM_FILL(name, move)                                                   \
  template <class T>                                                          \
  ZM_INLINE T simd_##name(T value, zm_same<T> filling, ushort arg, ZM_LINE) { \
    zm_slot<T>(*zm_me.self, 1) = filling;                                     \
    return zm_meet(value, arg, zm_meet_shuffle<T, move, 32, true>, line);     \
  }
ZM_FILL(shuffle_and_fill_up, zm_up)
ZM_FILL(shuffle_and_fill_down, zm_down)
#undef ZM_FILL

ZM_INLINE simd_vote simd_ballot(bool value, ZM_LINE) {
  const ulong bits = zm_meet(ulong(value), 0, zm_meet_ballot, line);
  return {bits, zm_slot<ulong>(*zm_me.self, 1)};
}
ZM_INLINE bool simd_all(bool value, ZM_LINE) {
  return simd_ballot(value, line).all();
}
ZM_INLINE bool simd_any(bool value, ZM_LINE) {
  return simd_ballot(value, line).any();
}
ZM_INLINE simd_vote simd_active_threads_mask(ZM_LINE) {
  return {simd_ballot(true, line).zm_active, 0xffffffff};
}
ZM_INLINE bool simd_is_first(ZM_LINE) {
  zm_meet(0, 0, zm_meet_first, line);
  return zm_me.self->arg == zm_lane();
}
template <class T>
ZM_INLINE T simd_broadcast_first(T value, ZM_LINE) {
  return zm_meet(value, 0, zm_meet_first, line);
}

static void zm_meet_multiply(zm_fiber* first, int count, uint mask) {
  float a[8][8] = {}, b[8][8] = {};
  for (int lane = 0; lane < count; ++lane) {
    const auto& parts = zm_slot<zm_matrix_parts>(first[lane]);
    const int row = zm_matrix_row(lane), column = zm_matrix_column(lane);
    for (int i = 0; i < 2 && mask >> lane & 1; ++i) {
      a[row][column + i] = parts.a[i];
      b[row][column + i] = parts.b[i];
    }
  }
  for (int lane = 0; lane < count; ++lane) {
    auto& parts = zm_slot<zm_matrix_parts>(first[lane]);
    const int row = zm_matrix_row(lane), column = zm_matrix_column(lane);
    for (int i = 0; i < 2 && mask >> lane & 1; ++i)
      for (int k = 0; k < 8; ++k)
        parts.c[i] = fma(a[row][k], b[k][column + i], parts.c[i]);
  }
}

// d = a b + c, each sum in the order of its terms.
template <class D, class A, class B, class C>
ZM_INLINE void simdgroup_multiply_accumulate(
    simdgroup_matrix<D>& d,
    const simdgroup_matrix<A>& a,
    const simdgroup_matrix<B>& b,
    const simdgroup_matrix<C>& c,
    ZM_LINE) {
  const zm_matrix_parts parts = {
      float2(a.zm_elements), float2(b.zm_elements), float2(c.zm_elements)};
  d.zm_elements = vec<D, 2>(zm_meet(parts, 0, zm_meet_multiply, line).c);
}
template <class D, class A, class B>
ZM_INLINE void simdgroup_multiply(
    simdgroup_matrix<D>& d,
    const simdgroup_matrix<A>& a,
    const simdgroup_matrix<B>& b,
    ZM_LINE) {
  simdgroup_multiply_accumulate(
      d, a, b, make_filled_simdgroup_matrix<float>(0.0f), line);
}

// Atomics are real ones, since threadgroups run on several system threads.

// Integer of the size of T, for what the processor can exchange.
template <class T>
using zm_bits_of = conditional_t<
    sizeof(T) == 1,
    uchar,
    conditional_t<
        sizeof(T) == 2,
        ushort,
        conditional_t<sizeof(T) == 4, uint, ulong>>>;

#if !defined(ZM_CHECKED)
template <class T>
ZM_INLINE T* zm_checked_atomic(T* pointer, int) {
  return pointer;
}
#endif

template <class T>
ZM_INLINE T zm_atomic_load(const volatile atomic<T>* p) {
  return as_type<T>(__atomic_load_n((const zm_bits_of<T>*)p, __ATOMIC_SEQ_CST));
}
// Replaces the value by f of it; returns what was there.
template <class T, class F>
ZM_INLINE T zm_atomic_update(volatile atomic<T>* p, F f) {
  using Bits = zm_bits_of<T>;
  Bits old = __atomic_load_n((Bits*)p, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(
      (Bits*)p,
      &old,
      as_type<Bits>(T(f(as_type<T>(old)))),
      true,
      __ATOMIC_SEQ_CST,
      __ATOMIC_RELAXED)) {
  }
  return as_type<T>(old);
}

#define ZM_ORDER int = 0, int = 0, ZM_LINE
// The value type behind a pointer to an atomic, checked or not.
template <class P>
using zm_atomic_value =
    remove_cv_t<decltype(zm_checked_atomic(P(), 0)->zm_value)>;

template <class P>
ZM_INLINE zm_atomic_value<P> atomic_load_explicit(P p, ZM_ORDER) {
  return zm_atomic_load(zm_checked_atomic(p, line));
}
template <class P>
ZM_INLINE void atomic_store_explicit(P p, zm_atomic_value<P> value, ZM_ORDER) {
  zm_atomic_update(zm_checked_atomic(p, line), [=](auto) { return value; });
}
#define ZM_ATOMIC(name, expression)                                        \
  template <class P>                                                       \
  ZM_INLINE zm_atomic_value<P> atomic_##name##_explicit(                   \
      P p, zm_atomic_value<P> value, ZM_ORDER) {                           \
    return zm_atomic_update(                                               \
        zm_checked_atomic(p, line), [=](auto old) { return expression; }); \
  }
ZM_ATOMIC(exchange, value)
ZM_ATOMIC(fetch_add, old + value)
ZM_ATOMIC(fetch_sub, old - value)
ZM_ATOMIC(fetch_min, min(old, value))
ZM_ATOMIC(fetch_max, max(old, value))
ZM_ATOMIC(fetch_and, old& value)
ZM_ATOMIC(fetch_or, old | value)
ZM_ATOMIC(fetch_xor, old ^ value)
#undef ZM_ATOMIC
template <class P>
ZM_INLINE bool atomic_compare_exchange_weak_explicit(
    P p,
    zm_atomic_value<P>* expected,
    zm_atomic_value<P> desired,
    int = 0,
    ZM_ORDER) {
  using T = zm_atomic_value<P>;
  using Bits = zm_bits_of<T>;
  Bits old = as_type<Bits>(*expected);
  const bool done = __atomic_compare_exchange_n(
      (Bits*)zm_checked_atomic(p, line),
      &old,
      as_type<Bits>(desired),
      false,
      __ATOMIC_SEQ_CST,
      __ATOMIC_SEQ_CST);
  *expected = as_type<T>(old);
  return done;
}
ZM_INLINE void atomic_thread_fence(mem_flags, int = 0, int = 0) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

} // namespace metal
