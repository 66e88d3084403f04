// SPDX-License-Identifier: MIT
// The types of the Metal dialect in C++17, for CUDA and for the host: integers,
// half, bfloat, complex numbers, limits. Pasted in front of a
// translated kernel; names that start with zm_ belong to the translator.
#pragma once

#if !defined(__CUDACC_RTC__) && !defined(__CUDACC__)
#define ZM_HOST 1
#define ZM_INLINE inline __attribute__((always_inline))
#define ZM_BUILTIN(name) __builtin_##name
#else
#define ZM_INLINE __forceinline__
#define ZM_BUILTIN(name) ::name
#endif
#if defined(ZM_HOST) && defined(__F16C__)
#include <immintrin.h>
#endif

namespace metal {

using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
using ulong = unsigned long;
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long;
using size_t = unsigned long;
using ptrdiff_t = long;
using uintptr_t = unsigned long;
static_assert(sizeof(long) == 8, "the dialect needs 64-bit long");

// What Metal has of <type_traits>.
template <bool B, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  using type = T;
};
template <bool B, class T = void>
using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class U>
struct conditional {
  using type = T;
};
template <class T, class U>
struct conditional<false, T, U> {
  using type = U;
};
template <bool B, class T, class U>
using conditional_t = typename conditional<B, T, U>::type;
template <class T, class U>
inline constexpr bool is_same_v = false;
template <class T>
inline constexpr bool is_same_v<T, T> = true;
template <class T, T V>
struct integral_constant {
  static constexpr T value = V;
  using value_type = T;
  constexpr operator T() const {
    return V;
  }
};
template <bool B>
using bool_constant = integral_constant<bool, B>;
using true_type = bool_constant<true>;
using false_type = bool_constant<false>;
template <class T, class U>
struct is_same : bool_constant<is_same_v<T, U>> {};
template <class T>
struct remove_cv {
  using type = T;
};
template <class T>
struct remove_cv<const T> : remove_cv<T> {};
template <class T>
struct remove_cv<volatile T> : remove_cv<T> {};
template <class T>
using remove_cv_t = typename remove_cv<T>::type;
template <class T>
struct remove_reference {
  using type = T;
};
template <class T>
struct remove_reference<T&> {
  using type = T;
};
template <class T>
using remove_reference_t = typename remove_reference<T>::type;

struct half;
struct bfloat;
template <class T>
inline constexpr bool zm_is_small = is_same_v<T, half> || is_same_v<T, bfloat>;
template <class T>
inline constexpr bool is_floating_point_v =
    is_same_v<T, float> || is_same_v<T, double> || zm_is_small<T>;
template <class T>
inline constexpr bool is_integral_v = is_same_v<T, bool> ||
    is_same_v<T, char> || is_same_v<T, signed char> || is_same_v<T, uchar> ||
    is_same_v<T, short> || is_same_v<T, ushort> || is_same_v<T, int> ||
    is_same_v<T, uint> || is_same_v<T, long> || is_same_v<T, ulong> ||
    is_same_v<T, long long> || is_same_v<T, unsigned long long>;
template <class T>
inline constexpr bool is_arithmetic_v =
    is_floating_point_v<T> || is_integral_v<T>;
template <class T>
inline constexpr bool is_unsigned_v = is_integral_v<T> && T(-1) > T(0);
template <class T>
inline constexpr bool is_signed_v = is_integral_v<T> && !(T(-1) > T(0));
template <class T>
using zm_same = typename remove_cv<T>::type; // not deduced

/// The bits of a value as another type of the same size.
template <class To, class From>
ZM_INLINE constexpr To as_type(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "as_type needs equal sizes");
  return __builtin_bit_cast(To, from);
}

// Rounds a float to the nearest half, ties to even.
constexpr ushort zm_half_bits(float value) {
  const uint bits = __builtin_bit_cast(uint, value);
  const uint sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) {
    return ushort(sign | 0x7e00 | (size >> 13 & 0x3ff));
  }
  if (size >= 0x47800000) {
    return ushort(sign | 0x7c00);
  }
  if (size < 0x38800000) { // subnormal: the float adder rounds for us
    const float shifted = __builtin_bit_cast(float, size) + 0.5f;
    return ushort(sign | (__builtin_bit_cast(uint, shifted) - 0x3f000000));
  }
  return ushort(sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13));
}

constexpr float zm_half_value(ushort bits) {
  const uint sign = uint(bits & 0x8000) << 16, size = bits & 0x7fff;
  if (size >= 0x7c00) {
    return __builtin_bit_cast(float, sign | 0x7f800000 | (size & 0x3ff) << 13);
  }
  if (size < 0x400) {
    const float value = float(size) * 0x1p-24f;
    return sign ? -value : value;
  }
  return __builtin_bit_cast(float, sign | ((size << 13) + 0x38000000));
}

#if defined(ZM_HOST) && defined(__F16C__)
ZM_INLINE constexpr ushort zm_to_half(float value) {
  return __builtin_is_constant_evaluated() ? zm_half_bits(value)
                                           : ushort(_cvtss_sh(value, 0));
}
ZM_INLINE constexpr float zm_from_half(ushort bits) {
  return __builtin_is_constant_evaluated() ? zm_half_value(bits)
                                           : _cvtsh_ss(bits);
}
#elif defined(ZM_HOST)
ZM_INLINE constexpr ushort zm_to_half(float value) {
  return zm_half_bits(value);
}
ZM_INLINE constexpr float zm_from_half(ushort bits) {
  return zm_half_value(bits);
}
#else
ZM_INLINE constexpr ushort zm_to_half(float value) {
  return __builtin_is_constant_evaluated()
      ? zm_half_bits(value)
      : __half_as_ushort(::__float2half_rn(value));
}
ZM_INLINE constexpr float zm_from_half(ushort bits) {
  return __builtin_is_constant_evaluated()
      ? zm_half_value(bits)
      : ::__half2float(__ushort_as_half(bits));
}
#endif

constexpr ushort zm_bfloat_bits(float value) {
  const uint bits = __builtin_bit_cast(uint, value);
  return (bits & 0x7fffffff) > 0x7f800000
      ? ushort(bits >> 16 | 0x40)
      : ushort((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define ZM_PAIRS 1
// Two floats as H, the first in the lower half.
template <class H>
ZM_INLINE uint zm_pair(float first, float second) {
  uint pair;
  if constexpr (is_same_v<H, half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  }
  return pair;
}
ZM_INLINE ushort zm_round_to_bfloat(float value) {
  return ushort(zm_pair<bfloat>(value, 0.0f));
}
ZM_INLINE constexpr ushort zm_to_bfloat(float value) {
  return __builtin_is_constant_evaluated() ? zm_bfloat_bits(value)
                                           : zm_round_to_bfloat(value);
}
#else
ZM_INLINE constexpr ushort zm_to_bfloat(float value) {
  return zm_bfloat_bits(value);
}
#endif

/// IEEE 16-bit float: every operation rounds once, through float.
struct half {
  ushort zm_bits;
  half() = default;
  template <
      class T,
      class = enable_if_t<is_arithmetic_v<T> || is_same_v<T, bfloat>>>
  ZM_INLINE constexpr half(T value) : zm_bits(zm_to_half(float(value))) {}
  ZM_INLINE constexpr operator float() const {
    return zm_from_half(zm_bits);
  }
};

/// The upper half of a float. Metal converts to it only where one asks for it:
/// bfloat(x), never by assignment from another type.
struct bfloat {
  ushort zm_bits;
  bfloat() = default;
  template <
      class T,
      class = enable_if_t<is_arithmetic_v<T> || is_same_v<T, half>>>
  ZM_INLINE constexpr explicit bfloat(T value)
      : zm_bits(zm_to_bfloat(float(value))) {}
  ZM_INLINE constexpr operator float() const {
    return __builtin_bit_cast(float, uint(zm_bits) << 16);
  }
};

using float16_t = half;
using bfloat16_t = bfloat;

// half with half or an integer stays half; with float it becomes float.
#define ZM_SMALL_OPERATOR(op)                                            \
  template <class H, class = enable_if_t<zm_is_small<H>>>                \
  ZM_INLINE constexpr H operator op(H a, H b) {                          \
    return H(float(a) op float(b));                                      \
  }                                                                      \
  template <class H, class T>                                            \
  ZM_INLINE constexpr enable_if_t<zm_is_small<H> && is_integral_v<T>, H> \
  operator op(H a, T b) {                                                \
    return H(float(a) op float(H(b)));                                   \
  }                                                                      \
  template <class H, class T>                                            \
  ZM_INLINE constexpr enable_if_t<zm_is_small<H> && is_integral_v<T>, H> \
  operator op(T a, H b) {                                                \
    return H(float(H(a)) op float(b));                                   \
  }                                                                      \
  template <class H, class T>                                            \
  ZM_INLINE constexpr enable_if_t<                                       \
      zm_is_small<H> && (is_same_v<T, float> || is_same_v<T, double>),   \
      T>                                                                 \
  operator op(H a, T b) {                                                \
    return T(float(a)) op b;                                             \
  }                                                                      \
  template <class H, class T>                                            \
  ZM_INLINE constexpr enable_if_t<                                       \
      zm_is_small<H> && (is_same_v<T, float> || is_same_v<T, double>),   \
      T>                                                                 \
  operator op(T a, H b) {                                                \
    return a op T(float(b));                                             \
  }                                                                      \
  template <class H, class T>                                            \
  ZM_INLINE constexpr enable_if_t<zm_is_small<H>, H&> operator op## =    \
      (H & a, T b) {                                                     \
    return a = H(a op b);                                                \
  }
ZM_SMALL_OPERATOR(+)
ZM_SMALL_OPERATOR(-)
ZM_SMALL_OPERATOR(*)
ZM_SMALL_OPERATOR(/)
#undef ZM_SMALL_OPERATOR

#define ZM_SMALL_COMPARE(op)                                     \
  template <class H, class T>                                    \
  ZM_INLINE constexpr enable_if_t<                               \
      zm_is_small<H> && (is_arithmetic_v<T> || is_same_v<T, H>), \
      bool>                                                      \
  operator op(H a, T b) {                                        \
    return float(a) op float(b);                                 \
  }                                                              \
  template <class H, class T>                                    \
  ZM_INLINE constexpr enable_if_t<                               \
      zm_is_small<H> && is_arithmetic_v<T> && !zm_is_small<T>,   \
      bool>                                                      \
  operator op(T a, H b) {                                        \
    return float(a) op float(b);                                 \
  }
ZM_SMALL_COMPARE(<)
ZM_SMALL_COMPARE(<=)
ZM_SMALL_COMPARE(>)
ZM_SMALL_COMPARE(>=)
ZM_SMALL_COMPARE(==)
ZM_SMALL_COMPARE(!=)
#undef ZM_SMALL_COMPARE

template <class H, class = enable_if_t<zm_is_small<H>>>
ZM_INLINE constexpr H operator-(H a) {
  return H(-float(a));
}
template <class H, class = enable_if_t<zm_is_small<H>>>
ZM_INLINE constexpr H operator+(H a) {
  return a;
}
template <class H, class = enable_if_t<zm_is_small<H>>>
ZM_INLINE H& operator++(H& a) {
  return a = H(float(a) + 1);
}
template <class H, class = enable_if_t<zm_is_small<H>>>
ZM_INLINE H& operator--(H& a) {
  return a = H(float(a) - 1);
}

/// MLX's complex64 as it lies in memory.
struct complex64_t {
  float real, imag;
  complex64_t() = default;
  ZM_INLINE constexpr complex64_t(float re, float im = 0)
      : real(re), imag(im) {}
};
ZM_INLINE constexpr complex64_t operator+(complex64_t a, complex64_t b) {
  return {a.real + b.real, a.imag + b.imag};
}
ZM_INLINE constexpr complex64_t operator-(complex64_t a, complex64_t b) {
  return {a.real - b.real, a.imag - b.imag};
}
ZM_INLINE constexpr complex64_t operator-(complex64_t a) {
  return {-a.real, -a.imag};
}
ZM_INLINE constexpr complex64_t operator*(complex64_t a, complex64_t b) {
  return {a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real};
}
ZM_INLINE constexpr complex64_t operator/(complex64_t a, complex64_t b) {
  const float size = b.real * b.real + b.imag * b.imag;
  return {
      (a.real * b.real + a.imag * b.imag) / size,
      (a.imag * b.real - a.real * b.imag) / size};
}
ZM_INLINE constexpr bool operator==(complex64_t a, complex64_t b) {
  return a.real == b.real && a.imag == b.imag;
}

template <class T, class = void>
struct numeric_limits {
  static constexpr bool zm_signed = T(-1) < T(0);
  static constexpr int digits = int(sizeof(T)) * 8 - (zm_signed ? 1 : 0);
  static constexpr T max() {
    return T(
        T(-1) < T(0)
            ? T((ulong(1) << (digits - 1)) - 1 + (ulong(1) << (digits - 1)))
            : T(-1));
  }
  static constexpr T min() {
    return zm_signed ? T(-max() - 1) : T(0);
  }
  static constexpr T lowest() {
    return min();
  }
};
template <>
struct numeric_limits<bool> {
  static constexpr bool max() {
    return true;
  }
  static constexpr bool min() {
    return false;
  }
  static constexpr bool lowest() {
    return false;
  }
};
#define ZM_FLOAT_LIMITS(type, digits_, max_, min_, epsilon_, inf_, nan_) \
  template <>                                                            \
  struct numeric_limits<type> {                                          \
    static constexpr int digits = digits_;                               \
    static constexpr type max() {                                        \
      return type(max_);                                                 \
    }                                                                    \
    static constexpr type min() {                                        \
      return type(min_);                                                 \
    }                                                                    \
    static constexpr type lowest() {                                     \
      return type(-(max_));                                              \
    }                                                                    \
    static constexpr type epsilon() {                                    \
      return type(epsilon_);                                             \
    }                                                                    \
    static constexpr type infinity() {                                   \
      return as_type<type>(inf_);                                        \
    }                                                                    \
    static constexpr type quiet_NaN() {                                  \
      return as_type<type>(nan_);                                        \
    }                                                                    \
  };
ZM_FLOAT_LIMITS(
    float,
    24,
    0x1.fffffep127f,
    0x1p-126f,
    0x1p-23f,
    0x7f800000u,
    0x7fc00000u)
ZM_FLOAT_LIMITS(
    half,
    11,
    65504.0f,
    0x1p-14f,
    0x1p-10f,
    ushort(0x7c00),
    ushort(0x7e00))
ZM_FLOAT_LIMITS(
    bfloat,
    8,
    0x1.fep127f,
    0x1p-126f,
    0x1p-7f,
    ushort(0x7f80),
    ushort(0x7fc0))
#undef ZM_FLOAT_LIMITS

// What MLX puts in front of every Metal kernel.
template <class T>
struct Limits {
  static constexpr T zm_bound(bool upper) {
    if constexpr (is_floating_point_v<T>) {
      return upper ? numeric_limits<T>::infinity()
                   : T(-float(numeric_limits<T>::infinity()));
    } else {
      return upper ? numeric_limits<T>::max() : numeric_limits<T>::min();
    }
  }
  static constexpr T max = zm_bound(true);
  static constexpr T min = zm_bound(false);
  static constexpr T finite_max = numeric_limits<T>::max();
  static constexpr T finite_min = numeric_limits<T>::lowest();
};

} // namespace metal
