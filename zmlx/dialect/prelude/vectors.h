// SPDX-License-Identifier: MIT
// Vectors of the Metal dialect: operators, swizzles, packed forms.
#pragma once

namespace metal {

// The alignment of a vector of so many bytes. MLX's memory on the host begins
// at multiples of 8 bytes; the checked form copies it to where Metal would have
// it.
constexpr int zm_alignment(int bytes) {
#if defined(ZM_HOST) && !defined(ZM_CHECKED)
  return bytes > 8 && bytes <= 16 ? 8 : bytes;
#else
  return bytes;
#endif
}

// Vectors. v.xyz is written v.zm(zm_swizzle<0, 1, 2>()), and as the target of
// an assignment v.zm_ref(...).
template <int... I>
struct zm_swizzle {};

template <class T, int N>
struct vec;

template <class V, int... I>
struct zm_swizzle_ref {
  V& target;
  template <class From>
  ZM_INLINE void operator=(const From& from) {
    const vec<typename V::zm_element, sizeof...(I)> values(from);
    int i = 0;
    ((target[I] = values[i++]), ...);
  }
  ZM_INLINE auto zm_get() const {
    return static_cast<const V&>(target).zm(zm_swizzle<I...>());
  }
#define ZM_ASSIGN(op)                                 \
  template <class From>                               \
  ZM_INLINE void operator op## = (const From& from) { \
    *this = zm_get() op from;                         \
  }
  ZM_ASSIGN(+)
  ZM_ASSIGN(-)
  ZM_ASSIGN(*)
  ZM_ASSIGN(/)
#undef ZM_ASSIGN
};

#define ZM_VECTOR_BODY(n)                                               \
  using zm_element = T;                                                 \
  vec() = default;                                                      \
  ZM_INLINE constexpr T& operator[](long i) {                           \
    return (&x)[i];                                                     \
  }                                                                     \
  ZM_INLINE constexpr const T& operator[](long i) const {               \
    return (&x)[i];                                                     \
  }                                                                     \
  template <int... I>                                                   \
  ZM_INLINE constexpr vec<T, sizeof...(I)> zm(zm_swizzle<I...>) const { \
    return vec<T, sizeof...(I)>((*this)[I]...);                         \
  }                                                                     \
  template <int... I>                                                   \
  ZM_INLINE zm_swizzle_ref<vec, I...> zm_ref(zm_swizzle<I...>) {        \
    return {*this};                                                     \
  }

template <class T>
struct alignas(zm_alignment(2 * sizeof(T))) vec<T, 2> {
  T x, y;
  ZM_VECTOR_BODY(2)
  ZM_INLINE constexpr vec(T all) : x(all), y(all) {}
  ZM_INLINE constexpr vec(T a, T b) : x(a), y(b) {}
  template <class U>
  ZM_INLINE constexpr explicit vec(vec<U, 2> o) : x(T(o.x)), y(T(o.y)) {}
};

template <class T>
struct alignas(zm_alignment(4 * sizeof(T))) vec<T, 3> {
  T x, y, z;
  ZM_VECTOR_BODY(3)
  ZM_INLINE constexpr vec(T all) : x(all), y(all), z(all) {}
  ZM_INLINE constexpr vec(T a, T b, T c) : x(a), y(b), z(c) {}
  ZM_INLINE constexpr vec(vec<T, 2> a, T b) : x(a.x), y(a.y), z(b) {}
  ZM_INLINE constexpr vec(T a, vec<T, 2> b) : x(a), y(b.x), z(b.y) {}
  template <class U>
  ZM_INLINE constexpr explicit vec(vec<U, 3> o)
      : x(T(o.x)), y(T(o.y)), z(T(o.z)) {}
};

template <class T>
struct alignas(zm_alignment(4 * sizeof(T))) vec<T, 4> {
  T x, y, z, w;
  ZM_VECTOR_BODY(4)
  ZM_INLINE constexpr vec(T all) : x(all), y(all), z(all), w(all) {}
  ZM_INLINE constexpr vec(T a, T b, T c, T d) : x(a), y(b), z(c), w(d) {}
  ZM_INLINE constexpr vec(vec<T, 2> a, vec<T, 2> b)
      : x(a.x), y(a.y), z(b.x), w(b.y) {}
  ZM_INLINE constexpr vec(vec<T, 2> a, T b, T c) : x(a.x), y(a.y), z(b), w(c) {}
  ZM_INLINE constexpr vec(T a, vec<T, 2> b, T c) : x(a), y(b.x), z(b.y), w(c) {}
  ZM_INLINE constexpr vec(T a, T b, vec<T, 2> c) : x(a), y(b), z(c.x), w(c.y) {}
  ZM_INLINE constexpr vec(vec<T, 3> a, T b) : x(a.x), y(a.y), z(a.z), w(b) {}
  ZM_INLINE constexpr vec(T a, vec<T, 3> b) : x(a), y(b.x), z(b.y), w(b.z) {}
  template <class U>
  ZM_INLINE constexpr explicit vec(vec<U, 4> o)
      : x(T(o.x)), y(T(o.y)), z(T(o.z)), w(T(o.w)) {}
};
#undef ZM_VECTOR_BODY

#define ZM_VECTOR_OPERATOR(op, Result)                                        \
  template <class T, int N>                                                   \
  ZM_INLINE constexpr vec<Result, N> operator op(vec<T, N> a, vec<T, N> b) {  \
    vec<Result, N> r(Result(0));                                              \
    for (int i = 0; i < N; ++i)                                               \
      r[i] = Result(a[i] op b[i]);                                            \
    return r;                                                                 \
  }                                                                           \
  template <class T, int N>                                                   \
  ZM_INLINE constexpr vec<Result, N> operator op(vec<T, N> a, zm_same<T> b) { \
    return a op vec<T, N>(b);                                                 \
  }                                                                           \
  template <class T, int N>                                                   \
  ZM_INLINE constexpr vec<Result, N> operator op(zm_same<T> a, vec<T, N> b) { \
    return vec<T, N>(a) op b;                                                 \
  }
#define ZM_VECTOR_ARITHMETIC(op)                                               \
  ZM_VECTOR_OPERATOR(op, T)                                                    \
  template <class T, int N, class U>                                           \
  ZM_INLINE constexpr vec<T, N>& operator op## = (vec<T, N> & a, const U& b) { \
    return a = a op b;                                                         \
  }
ZM_VECTOR_ARITHMETIC(+)
ZM_VECTOR_ARITHMETIC(-)
ZM_VECTOR_ARITHMETIC(*)
ZM_VECTOR_ARITHMETIC(/)
ZM_VECTOR_ARITHMETIC(%)
ZM_VECTOR_ARITHMETIC(&)
ZM_VECTOR_ARITHMETIC(|)
ZM_VECTOR_ARITHMETIC(^)
ZM_VECTOR_ARITHMETIC(<<)
ZM_VECTOR_ARITHMETIC(>>)
ZM_VECTOR_OPERATOR(<, bool)
ZM_VECTOR_OPERATOR(<=, bool)
ZM_VECTOR_OPERATOR(>, bool)
ZM_VECTOR_OPERATOR(>=, bool)
ZM_VECTOR_OPERATOR(==, bool)
ZM_VECTOR_OPERATOR(!=, bool)
ZM_VECTOR_OPERATOR(&&, bool)
ZM_VECTOR_OPERATOR(||, bool)
#undef ZM_VECTOR_ARITHMETIC
#undef ZM_VECTOR_OPERATOR

// f(v) for each element, in the type that f returns.
template <class F, class T, int N>
ZM_INLINE constexpr auto zm_each(F f, vec<T, N> a) {
  vec<decltype(f(a[0])), N> r(decltype(f(a[0]))(0));
  for (int i = 0; i < N; ++i)
    r[i] = f(a[i]);
  return r;
}
template <class T, int N>
ZM_INLINE constexpr vec<T, N> operator-(vec<T, N> a) {
  return zm_each([](T x) { return T(-x); }, a);
}
template <class T, int N>
ZM_INLINE constexpr vec<T, N> operator+(vec<T, N> a) {
  return a;
}
template <class T, int N>
ZM_INLINE constexpr vec<T, N> operator~(vec<T, N> a) {
  return zm_each([](T x) { return T(~x); }, a);
}
template <class T, int N>
ZM_INLINE constexpr vec<bool, N> operator!(vec<T, N> a) {
  return zm_each([](T x) { return !x; }, a);
}

/// A vector without padding or alignment of its own, as it lies in memory.
template <class T, int N>
struct packed_vec {
  using zm_element = T;
  T zm_values[N];
  packed_vec() = default;
  ZM_INLINE constexpr packed_vec(vec<T, N> v) : zm_values{} {
    for (int i = 0; i < N; ++i)
      zm_values[i] = v[i];
  }
  template <class... U, class = enable_if_t<sizeof...(U) == N>>
  ZM_INLINE constexpr packed_vec(U... values) : zm_values{T(values)...} {}
  ZM_INLINE constexpr operator vec<T, N>() const {
    vec<T, N> v(T(0));
    for (int i = 0; i < N; ++i)
      v[i] = zm_values[i];
    return v;
  }
  ZM_INLINE constexpr T& operator[](long i) {
    return zm_values[i];
  }
  ZM_INLINE constexpr const T& operator[](long i) const {
    return zm_values[i];
  }
};

#define ZM_VECTOR_NAMES(name, type)             \
  using name##2 = vec<type, 2>;                 \
  using name##3 = vec<type, 3>;                 \
  using name##4 = vec<type, 4>;                 \
  using packed_##name##2 = packed_vec<type, 2>; \
  using packed_##name##3 = packed_vec<type, 3>; \
  using packed_##name##4 = packed_vec<type, 4>;
ZM_VECTOR_NAMES(bool, bool)
ZM_VECTOR_NAMES(char, signed char)
ZM_VECTOR_NAMES(uchar, uchar)
ZM_VECTOR_NAMES(short, short)
ZM_VECTOR_NAMES(ushort, ushort)
ZM_VECTOR_NAMES(int, int)
ZM_VECTOR_NAMES(uint, uint)
ZM_VECTOR_NAMES(long, long)
ZM_VECTOR_NAMES(ulong, ulong)
ZM_VECTOR_NAMES(half, half)
ZM_VECTOR_NAMES(bfloat, bfloat)
ZM_VECTOR_NAMES(float, float)
#undef ZM_VECTOR_NAMES

} // namespace metal
