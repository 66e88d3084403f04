// SPDX-License-Identifier: MIT
// The functions of the Metal dialect that need no other thread: mathematics in
// Metal's precise meaning, integers, geometry, MLX's indexing helpers.
#pragma once

#undef INFINITY
#undef NAN
#define INFINITY (::metal::numeric_limits<float>::infinity())
#define NAN (::metal::numeric_limits<float>::quiet_NaN())
#define HUGE_VALF INFINITY
#define MAXFLOAT 0x1.fffffep127f
#define MAXHALF (::metal::half(65504.0f))
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_PI_4_F 0.78539816339744830962f
#define M_1_PI_F 0.31830988618379067154f
#define M_2_PI_F 0.63661977236758134308f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f
#define M_E_F 2.71828182845904523536f
#define M_LN2_F 0.69314718055994530942f
#define M_LN10_F 2.30258509299404568402f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LOG10E_F 0.43429448190325182765f
#ifndef FLT_MAX
#define FLT_MAX 0x1.fffffep127f
#define FLT_MIN 0x1p-126f
#define FLT_EPSILON 0x1p-23f
#endif
#ifndef INT_MAX
#define INT_MAX 2147483647
#define INT_MIN (-INT_MAX - 1)
#define UINT_MAX 4294967295u
#endif
#define METAL_FUNC inline
#define MLX_MTL_CONST static constexpr const
#define MLX_MTL_LOOP_UNROLL
#define MLX_MTL_PRAGMA_UNROLL

namespace metal {

// A function of floats, for float, half and bfloat and for vectors of them.
#define ZM_FUNCTION_1(name, ...)                          \
  ZM_INLINE float name(float x) {                         \
    return __VA_ARGS__;                                   \
  }                                                       \
  template <class H, class = enable_if_t<zm_is_small<H>>> \
  ZM_INLINE H name(H x) {                                 \
    return H(name(float(x)));                             \
  }                                                       \
  template <class T, int N>                               \
  ZM_INLINE vec<T, N> name(vec<T, N> x) {                 \
    return zm_each([](T v) { return T(name(v)); }, x);    \
  }
#define ZM_FUNCTION_2(name, ...)                          \
  ZM_INLINE float name(float x, float y) {                \
    return __VA_ARGS__;                                   \
  }                                                       \
  template <class H, class = enable_if_t<zm_is_small<H>>> \
  ZM_INLINE H name(H x, H y) {                            \
    return H(name(float(x), float(y)));                   \
  }                                                       \
  template <class T, int N>                               \
  ZM_INLINE vec<T, N> name(vec<T, N> x, vec<T, N> y) {    \
    vec<T, N> r(T(0));                                    \
    for (int i = 0; i < N; ++i)                           \
      r[i] = name(x[i], y[i]);                            \
    return r;                                             \
  }

ZM_FUNCTION_1(exp, ZM_BUILTIN(expf)(x))
ZM_FUNCTION_1(exp2, ZM_BUILTIN(exp2f)(x))
ZM_FUNCTION_1(log, ZM_BUILTIN(logf)(x))
ZM_FUNCTION_1(log2, ZM_BUILTIN(log2f)(x))
ZM_FUNCTION_1(log10, ZM_BUILTIN(log10f)(x))
ZM_FUNCTION_1(log1p, ZM_BUILTIN(log1pf)(x)) // of MLX's own helpers
ZM_FUNCTION_1(sin, ZM_BUILTIN(sinf)(x))
ZM_FUNCTION_1(cos, ZM_BUILTIN(cosf)(x))
ZM_FUNCTION_1(tan, ZM_BUILTIN(tanf)(x))
ZM_FUNCTION_1(asin, ZM_BUILTIN(asinf)(x))
ZM_FUNCTION_1(acos, ZM_BUILTIN(acosf)(x))
ZM_FUNCTION_1(atan, ZM_BUILTIN(atanf)(x))
ZM_FUNCTION_1(sinh, ZM_BUILTIN(sinhf)(x))
ZM_FUNCTION_1(cosh, ZM_BUILTIN(coshf)(x))
ZM_FUNCTION_1(tanh, ZM_BUILTIN(tanhf)(x))
ZM_FUNCTION_1(asinh, ZM_BUILTIN(asinhf)(x))
ZM_FUNCTION_1(acosh, ZM_BUILTIN(acoshf)(x))
ZM_FUNCTION_1(atanh, ZM_BUILTIN(atanhf)(x))
ZM_FUNCTION_1(sqrt, ZM_BUILTIN(sqrtf)(x))
#if defined(ZM_HOST)
ZM_FUNCTION_1(exp10, float(__builtin_exp2(3.32192809488736234787 * x)))
ZM_FUNCTION_1(rsqrt, 1.0f / __builtin_sqrtf(x))
#else
ZM_FUNCTION_1(exp10, ::exp10f(x))
ZM_FUNCTION_1(rsqrt, ::rsqrtf(x))
#endif
ZM_FUNCTION_1(floor, ZM_BUILTIN(floorf)(x))
ZM_FUNCTION_1(ceil, ZM_BUILTIN(ceilf)(x))
ZM_FUNCTION_1(round, ZM_BUILTIN(roundf)(x))
ZM_FUNCTION_1(rint, ZM_BUILTIN(rintf)(x))
ZM_FUNCTION_1(trunc, ZM_BUILTIN(truncf)(x))
ZM_FUNCTION_1(fabs, ZM_BUILTIN(fabsf)(x))
ZM_FUNCTION_1(sinpi, ZM_BUILTIN(sinf)(M_PI_F*(x - 2 * floor(x * 0.5f))))
ZM_FUNCTION_1(cospi, ZM_BUILTIN(cosf)(M_PI_F*(x - 2 * floor(x * 0.5f))))
ZM_FUNCTION_1(tanpi, sinpi(x) / cospi(x))
#if defined(ZM_HOST)
// NaN does not win a comparison, so fmin and fmax ignore it as in C.
ZM_FUNCTION_2(fmin, y < x || x != x ? y : x)
ZM_FUNCTION_2(fmax, y > x || x != x ? y : x)
#else
ZM_FUNCTION_2(fmin, ::fminf(x, y))
ZM_FUNCTION_2(fmax, ::fmaxf(x, y))
#endif
ZM_FUNCTION_2(fmod, ZM_BUILTIN(fmodf)(x, y))
ZM_FUNCTION_2(pow, ZM_BUILTIN(powf)(x, y))
ZM_FUNCTION_2(powr, ZM_BUILTIN(powf)(x, y))
ZM_FUNCTION_2(atan2, ZM_BUILTIN(atan2f)(x, y))
ZM_FUNCTION_2(copysign, ZM_BUILTIN(copysignf)(x, y))
ZM_FUNCTION_2(fdim, x > y ? x - y : (x != x || y != y ? x + y : 0.0f))
ZM_FUNCTION_2(step, y < x ? 0.0f : 1.0f) // step(edge, x)
ZM_FUNCTION_2(nextafter, ZM_BUILTIN(nextafterf)(x, y))
ZM_FUNCTION_1(
    fract,
    x == INFINITY || x == -INFINITY ? 0.0f : fmin(x - floor(x), 0x1.fffffep-1f))
ZM_FUNCTION_1(saturate, fmin(fmax(x, 0.0f), 1.0f))
ZM_FUNCTION_1(sign, x > 0 ? 1.0f : (x < 0 ? -1.0f : (x == 0 ? x : 0.0f)))
#undef ZM_FUNCTION_1
#undef ZM_FUNCTION_2

ZM_INLINE float fma(float a, float b, float c) {
  return ZM_BUILTIN(fmaf)(a, b, c);
}
template <class H, class = enable_if_t<zm_is_small<H>>>
ZM_INLINE H fma(H a, H b, H c) {
  // The product of two small floats is exact in float.
  return H(float(a) * float(b) + float(c));
}
template <class T, int N>
ZM_INLINE vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
  vec<T, N> r(T(0));
  for (int i = 0; i < N; ++i)
    r[i] = fma(a[i], b[i], c[i]);
  return r;
}
template <class T>
ZM_INLINE T mad(T a, T b, zm_same<T> c) {
  if constexpr (is_same_v<T, float>) {
    return fma(a, b, c);
  } else {
    return T(a * b + c);
  }
}

#define ZM_TEST(name, expression)                                 \
  template <class T, class = enable_if_t<is_floating_point_v<T>>> \
  ZM_INLINE bool name(T value) {                                  \
    const float x = float(value);                                 \
    return expression;                                            \
  }                                                               \
  template <class T, int N>                                       \
  ZM_INLINE vec<bool, N> name(vec<T, N> x) {                      \
    return zm_each([](T v) { return name(v); }, x);               \
  }
ZM_TEST(isnan, x != x)
ZM_TEST(isinf, x == INFINITY || x == -INFINITY)
ZM_TEST(isfinite, x - x == 0)
ZM_TEST(isnormal, x - x == 0 && fabs(x) >= 0x1p-126f)
ZM_TEST(signbit, as_type<int>(x) < 0)
#undef ZM_TEST

// Of two equal types, as Metal's overloads; NaN is ignored.
template <class T, class = enable_if_t<is_arithmetic_v<T>>>
ZM_INLINE constexpr T min(T a, T b) {
  return b < a || a != a ? b : a;
}
template <class T, class = enable_if_t<is_arithmetic_v<T>>>
ZM_INLINE constexpr T max(T a, T b) {
  return b > a || a != a ? b : a;
}
#define ZM_MIN_MAX(name)                                \
  template <class T, int N>                             \
  ZM_INLINE vec<T, N> name(vec<T, N> a, vec<T, N> b) {  \
    vec<T, N> r(T(0));                                  \
    for (int i = 0; i < N; ++i)                         \
      r[i] = name(a[i], b[i]);                          \
    return r;                                           \
  }                                                     \
  template <class T, int N>                             \
  ZM_INLINE vec<T, N> name(vec<T, N> a, zm_same<T> b) { \
    return name(a, vec<T, N>(b));                       \
  }                                                     \
  template <class T>                                    \
  ZM_INLINE T name##3(T a, T b, T c) {                  \
    return name(name(a, b), c);                         \
  }
ZM_MIN_MAX(min)
ZM_MIN_MAX(max)
#undef ZM_MIN_MAX
template <class T>
ZM_INLINE T median3(T a, T b, T c) {
  return max(min(a, b), min(max(a, b), c));
}
template <class T>
ZM_INLINE T clamp(T x, T low, T high) {
  return min(max(x, low), high);
}
template <class T, int N>
ZM_INLINE vec<T, N> clamp(vec<T, N> x, zm_same<T> low, zm_same<T> high) {
  return min(max(x, vec<T, N>(low)), vec<T, N>(high));
}

template <class T, class = enable_if_t<is_arithmetic_v<T>>>
ZM_INLINE T abs(T x) {
  if constexpr (is_floating_point_v<T>) {
    return T(fabs(float(x)));
  } else {
    return x < T(0) ? T(-x) : x;
  }
}
template <class T, int N>
ZM_INLINE vec<T, N> abs(vec<T, N> x) {
  return zm_each([](T v) { return abs(v); }, x);
}

/// select(a, b, c): b where c, else a.
template <class T, class = enable_if_t<is_arithmetic_v<T>>>
ZM_INLINE T select(T a, T b, bool c) {
  return c ? b : a;
}
template <class T, int N>
ZM_INLINE vec<T, N> select(vec<T, N> a, vec<T, N> b, vec<bool, N> c) {
  for (int i = 0; i < N; ++i)
    a[i] = c[i] ? b[i] : a[i];
  return a;
}
template <class T>
ZM_INLINE T mix(T a, T b, T t) {
  return T(a + (b - a) * t);
}
template <class T, int N>
ZM_INLINE vec<T, N> mix(vec<T, N> a, vec<T, N> b, zm_same<T> t) {
  return a + (b - a) * t;
}
template <class T>
ZM_INLINE T smoothstep(T low, T high, T x) {
  const T t = clamp(T((x - low) / (high - low)), T(0), T(1));
  return T(t * t * (T(3) - T(2) * t));
}

ZM_INLINE float ldexp(float x, int e) {
  return ZM_BUILTIN(ldexpf)(x, e);
}
ZM_INLINE float frexp(float x, int& e) {
  return ZM_BUILTIN(frexpf)(x, &e);
}
ZM_INLINE int ilogb(float x) {
  return ZM_BUILTIN(ilogbf)(x);
}
ZM_INLINE float modf(float x, float& whole) {
  return ZM_BUILTIN(modff)(x, &whole);
}
ZM_INLINE float sincos(float x, float& cosine) {
  cosine = cos(x);
  return sin(x);
}

// Vectors as a whole.
template <class T, int N>
ZM_INLINE T dot(vec<T, N> a, vec<T, N> b) {
  T r = T(a[0] * b[0]);
  for (int i = 1; i < N; ++i)
    r = T(r + a[i] * b[i]);
  return r;
}
template <class T>
ZM_INLINE vec<T, 3> cross(vec<T, 3> a, vec<T, 3> b) {
  return vec<T, 3>(
      T(a.y * b.z - a.z * b.y),
      T(a.z * b.x - a.x * b.z),
      T(a.x * b.y - a.y * b.x));
}
template <class T, int N>
ZM_INLINE T length_squared(vec<T, N> a) {
  return dot(a, a);
}
template <class T, int N>
ZM_INLINE T length(vec<T, N> a) {
  return sqrt(dot(a, a));
}
template <class T, int N>
ZM_INLINE T distance(vec<T, N> a, vec<T, N> b) {
  return length(a - b);
}
template <class T, int N>
ZM_INLINE vec<T, N> normalize(vec<T, N> a) {
  return a * rsqrt(dot(a, a));
}
template <int N>
ZM_INLINE bool any(vec<bool, N> a) {
  bool r = false;
  for (int i = 0; i < N; ++i)
    r |= a[i];
  return r;
}
template <int N>
ZM_INLINE bool all(vec<bool, N> a) {
  bool r = true;
  for (int i = 0; i < N; ++i)
    r &= a[i];
  return r;
}

// Integers.
template <class T, class = enable_if_t<is_integral_v<T>>>
ZM_INLINE T popcount(T x) {
  T r = 0;
  for (auto bits = ulong(x) & (~0ul >> (64 - 8 * sizeof(T))); bits;
       bits &= bits - 1)
    ++r;
  return r;
}
template <class T, class = enable_if_t<is_integral_v<T>>>
ZM_INLINE T clz(T x) {
  T r = 0;
  for (int bit = 8 * sizeof(T) - 1; bit >= 0 && !(ulong(x) >> bit & 1); --bit)
    ++r;
  return r;
}
template <class T, class = enable_if_t<is_integral_v<T>>>
ZM_INLINE T ctz(T x) {
  T r = 0;
  for (int bit = 0; bit < int(8 * sizeof(T)) && !(ulong(x) >> bit & 1); ++bit)
    ++r;
  return r;
}
template <class T, class = enable_if_t<is_integral_v<T>>>
ZM_INLINE T reverse_bits(T x) {
  ulong r = 0;
  for (int bit = 0; bit < int(8 * sizeof(T)); ++bit)
    r = r << 1 | (ulong(x) >> bit & 1);
  return T(r);
}
template <class T, class = enable_if_t<is_integral_v<T>>>
ZM_INLINE T rotate(T x, T count) {
  constexpr int width = 8 * sizeof(T);
  const int left = int(ulong(count) % width);
  const ulong bits = ulong(x) & (~0ul >> (64 - width));
  return left == 0 ? x : T(bits << left | bits >> (width - left));
}
template <class T, class = enable_if_t<is_integral_v<T>>>
ZM_INLINE T mulhi(T a, T b) {
  if constexpr (sizeof(T) < 8) {
    return T(long(a) * long(b) >> 8 * sizeof(T));
  } else if constexpr (T(-1) > T(0)) {
    const ulong al = uint(a), ah = a >> 32, bl = uint(b), bh = b >> 32;
    const ulong middle = ah * bl + (al * bl >> 32);
    return ah * bh + (middle >> 32) + ((al * bh + uint(middle)) >> 32);
  } else {
    return T(mulhi(ulong(a), ulong(b))) - (a < 0 ? b : 0) - (b < 0 ? a : 0);
  }
}
template <class T, class = enable_if_t<is_integral_v<T>>>
ZM_INLINE T absdiff(T a, T b) {
  return a > b ? T(a - b) : T(b - a);
}
template <class T, class = enable_if_t<is_integral_v<T>>>
ZM_INLINE T addsat(T a, T b) {
  if (b > T(0) && a > T(numeric_limits<T>::max() - b))
    return numeric_limits<T>::max();
  if (b < T(0) && a < T(numeric_limits<T>::min() - b))
    return numeric_limits<T>::min();
  return T(a + b);
}
template <class T, class = enable_if_t<is_integral_v<T>>>
ZM_INLINE T subsat(T a, T b) {
  if (b < T(0) && a > T(numeric_limits<T>::max() + b))
    return numeric_limits<T>::max();
  if (b > T(0) && a < T(numeric_limits<T>::min() + b))
    return numeric_limits<T>::min();
  return T(a - b);
}
template <class T>
ZM_INLINE T extract_bits(T x, uint offset, uint bits) {
  if (bits == 0)
    return T(0);
  const uint unused = 8 * sizeof(T) - bits;
  return T(T(x << (unused - offset)) >> unused);
}
template <class T>
ZM_INLINE T insert_bits(T base, T insert, uint offset, uint bits) {
  const T mask = T((bits >= 8 * sizeof(T) ? T(-1) : T((T(1) << bits) - 1)))
      << offset;
  return T((base & ~mask) | (T(insert << offset) & mask));
}
ZM_INLINE int mul24(int a, int b) {
  return a * b;
}
ZM_INLINE int mad24(int a, int b, int c) {
  return a * b + c;
}

// Four bytes or two halves in a word.
ZM_INLINE float4 unpack_unorm4x8_to_float(uint x) {
  return float4(x & 255, x >> 8 & 255, x >> 16 & 255, x >> 24) * (1 / 255.0f);
}
ZM_INLINE uint pack_float_to_unorm4x8(float4 x) {
  const float4 v = rint(clamp(x, 0.0f, 1.0f) * 255.0f);
  return uint(v.x) | uint(v.y) << 8 | uint(v.z) << 16 | uint(v.w) << 24;
}

// What MLX puts in front of every Metal kernel.
template <class T, class U>
ZM_INLINE T ceildiv(T n, U m) {
  return (n + m - 1) / m;
}
template <class U, class T>
ZM_INLINE U cast_to(T value) {
  return static_cast<U>(value);
}
template <class IdxT = int64_t, class Shape, class Strides>
ZM_INLINE IdxT
elem_to_loc(zm_same<IdxT> elem, Shape shape, Strides strides, int ndim) {
  IdxT loc = 0;
  for (int i = ndim - 1; i >= 0 && elem > 0; --i) {
    loc += (elem % IdxT(shape[i])) * IdxT(strides[i]);
    elem /= IdxT(shape[i]);
  }
  return loc;
}
template <class IdxT = int64_t, class Shape, class Strides>
ZM_INLINE IdxT elem_to_loc(uint3 elem, Shape shape, Strides strides, int ndim) {
  IdxT loc =
      elem.x * IdxT(strides[ndim - 1]) + elem.y * IdxT(strides[ndim - 2]);
  for (int d = ndim - 3; d >= 0; --d) {
    loc += (elem.z % shape[d]) * IdxT(strides[d]);
    elem.z /= shape[d];
  }
  return loc;
}
template <class IdxT = int64_t>
ZM_INLINE IdxT elem_to_loc_1(uint elem, int64_t stride) {
  return elem * IdxT(stride);
}
template <class IdxT = int64_t, class Strides>
ZM_INLINE IdxT elem_to_loc_2(uint2 elem, Strides strides) {
  return elem.x * IdxT(strides[1]) + elem.y * IdxT(strides[0]);
}
template <class IdxT = int64_t, class Strides>
ZM_INLINE IdxT elem_to_loc_3(uint3 elem, Strides strides) {
  return elem.x * IdxT(strides[2]) + elem.y * IdxT(strides[1]) +
      elem.z * IdxT(strides[0]);
}

#define ZM_SAME_IN(space)                                                      \
  namespace space {                                                            \
  using metal::abs, metal::acos, metal::acosh, metal::asin, metal::asinh;      \
  using metal::atan, metal::atan2, metal::atanh, metal::ceil, metal::clamp;    \
  using metal::copysign, metal::cosh, metal::cospi, metal::fabs, metal::fdim;  \
  using metal::floor, metal::fma, metal::fmax, metal::fmin, metal::fmod;       \
  using metal::fract, metal::isfinite, metal::isinf, metal::isnan;             \
  using metal::ldexp, metal::max, metal::min, metal::mix, metal::pow;          \
  using metal::powr, metal::rint, metal::round, metal::rsqrt, metal::saturate; \
  using metal::sign, metal::sinh, metal::sinpi, metal::smoothstep;             \
  using metal::sqrt, metal::step, metal::tan, metal::tanh, metal::tanpi;       \
  using metal::trunc, metal::normalize, metal::length, metal::distance;        \
  using metal::exp10, metal::log10;                                            \
  }
ZM_SAME_IN(precise)
ZM_SAME_IN(fast)
#undef ZM_SAME_IN
namespace precise {
using metal::cos, metal::exp, metal::exp2, metal::log, metal::log2, metal::sin;
ZM_INLINE float divide(float x, float y) {
  return x / y;
}
} // namespace precise
namespace fast {
#if defined(ZM_HOST)
using metal::cos, metal::exp, metal::exp2, metal::log, metal::log2, metal::sin;
using precise::divide;
#else
// 0 where |y| is above 2^126.
ZM_INLINE float divide(float x, float y) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(y));
  return x * inverse;
}
// Gives 0 for subnormals.
ZM_INLINE float zm_exp(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * 1.44269504f));
  return result;
}
// Where CUDA has a faster one of Metal's tolerance.
#define ZM_FAST(name, intrinsic)                          \
  ZM_INLINE float name(float x) {                         \
    return intrinsic(x);                                  \
  }                                                       \
  template <class H, class = enable_if_t<zm_is_small<H>>> \
  ZM_INLINE H name(H x) {                                 \
    return H(intrinsic(float(x)));                        \
  }                                                       \
  template <class T, int N>                               \
  ZM_INLINE vec<T, N> name(vec<T, N> x) {                 \
    return zm_each([](T v) { return fast::name(v); }, x); \
  }
ZM_FAST(cos, ::__cosf)
ZM_FAST(exp, zm_exp)
ZM_FAST(exp2, ::exp2f)
ZM_FAST(log, ::__logf)
ZM_FAST(log2, ::__log2f)
ZM_FAST(sin, ::__sinf)
#undef ZM_FAST
#endif
} // namespace fast

} // namespace metal
