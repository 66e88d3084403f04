// SPDX-License-Identifier: MIT
// What products of matrices with rows in lanes share on AVX-512 with VNNI:
// groups of a vector as integers, and the dot product of bytes.

#if defined(ZMLX_COMMON_INTEGER_GROUP_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_INTEGER_GROUP_INL_H
#undef ZMLX_COMMON_INTEGER_GROUP_INL_H
#else
#define ZMLX_COMMON_INTEGER_GROUP_INL_H
#endif

#include <cstring>

#include <immintrin.h>

#include "hwy/highway.h"
#include "zmlx/kernels/common/float_fields-inl.h"
#include "zmlx/kernels/common/packed_matrix.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

/// sum += products of unsigned and signed bytes, in fours. GCC 12 copies and
/// spills every sum of the intrinsic's.
HWY_INLINE void dot_bytes(__m512i& sum, __m512i bytes, __m512i digits) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(digits));
}
/// The same with one four of digits for all.
HWY_INLINE void dot_bytes(__m512i& sum, __m512i bytes, const int32_t* digits) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(bytes), "m"(*digits));
}

/// A 256th of the e4m3 values in the upper bytes of 16 integers. As halves,
/// whose exponents differ by 8: small numbers are no floats that cores are slow
/// with.
HWY_INLINE __m512 e4m3_halves(__m256i codes) {
  // The sign comes along to the exponent's first bit, and is cleared there.
  const __m256i halves = _mm256_and_si256(
      _mm256_srai_epi16(codes, 1),
      _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
  const __m256i ones = _mm256_set1_epi16(0x3f80);
  const __mmask16 nan =
      _mm256_cmpeq_epi16_mask(_mm256_and_si256(halves, ones), ones);
  return _mm512_cvtph_ps(
      _mm256_mask_mov_epi16(halves, nan, _mm256_set1_epi16(0x7e00)));
}

/// Half the scales of 16 rows of a block from the lowest bytes of its words, as
/// products with kE2m1Bytes need them.
template <Scheme kScheme>
HWY_INLINE __m512 half_scales(__m512i words) {
  const __m512i codes = _mm512_and_si512(words, _mm512_set1_epi32(255));
  if constexpr (kScheme == Scheme::MXFP4) {
    // 2^-127 is not a normal number.
    return _mm512_mul_ps(
        _mm512_castsi512_ps(_mm512_max_epu32(
            _mm512_slli_epi32(codes, 23), _mm512_set1_epi32(0x00400000))),
        _mm512_set1_ps(0.5f));
  } else {
    return _mm512_mul_ps(
        e4m3_halves(_mm256_slli_epi16(_mm512_cvtepi32_epi16(codes), 8)),
        _mm512_set1_ps(128));
  }
}

/// The scales and biases of 16 rows of a block, from a word of both for each.
struct Halves {
  __m512 scale, bias;

  HWY_INLINE Halves(FloatType type, __m512i words) {
    if (type == FloatType::BF16) {
      scale = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
      bias = _mm512_castsi512_ps(
          _mm512_andnot_si512(_mm512_set1_epi32(0xffff), words));
    } else {
      scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
      bias =
          _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
    }
  }
  /// Of fields as kE2m1Bytes has them.
  HWY_INLINE Halves(Scheme scheme, __m512i words)
      : scale(
            scheme == Scheme::NVFP4 ? half_scales<Scheme::NVFP4>(words)
                                    : half_scales<Scheme::MXFP4>(words)),
        bias(_mm512_mul_ps(scale, _mm512_set1_ps(-kE2m1Offset))) {}
};

/// The lower halves of bytes as integer products take them: as they are, or as
/// kE2m1Bytes has them.
template <bool kFloats>
HWY_INLINE __m512i low_nibbles(__m512i bytes) {
  const __m512i low = _mm512_and_si512(bytes, _mm512_set1_epi8(15));
  if constexpr (!kFloats) {
    return low;
  } else {
    const auto* table = reinterpret_cast<const __m128i*>(kE2m1Bytes.data());
    return _mm512_shuffle_epi8(
        _mm512_broadcast_i32x4(_mm_loadu_si128(table)), low);
  }
}

/// Digits, scale and sum of a group of one row; false where integers will not
/// do. Digit d of columns 4 k .. 4 k + 3 goes to digits[k * step + d * digit].
HWY_INLINE bool prepare_group(
    const float* x,
    int64_t columns,
    bool nibbles,
    int64_t step,
    int64_t digit,
    int32_t* digits,
    float* scale,
    float* sum) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i most = _mm512_setzero_si512();
  for (int64_t k = 0; k < columns; k += 16) {
    most = _mm512_max_epu32(
        most, _mm512_and_si512(_mm512_loadu_si512(x + k), magnitude));
  }
  const uint32_t bits = _mm512_reduce_max_epu32(most);
  float largest;
  std::memcpy(&largest, &bits, 4);
  const bool fits = bits == 0 || (bits < 0x7f800000u && largest >= 1e-30f);
  constexpr float kMost = 127 * 65536 + 127 * 256;
  const __m512 inverse = _mm512_set1_ps(fits && bits ? kMost / largest : 0);
  *scale = fits ? largest / kMost : 0;
  // Adding 128 to each digit makes it an unsigned byte; flipping the top bit
  // takes 128 away again.
  const __m512i offset = _mm512_set1_epi32(0x808080);
  const __m512i order =
      _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  // Of four columns: their middle digits, low digits, high digits.
  const __m512i split = _mm512_broadcast_i32x4(
      _mm_setr_epi8(1, 5, 9, 13, 0, 4, 8, 12, 2, 6, 10, 14, -1, -1, -1, -1));
  __m512i total = _mm512_setzero_si512();
  for (int64_t k = 0; k < columns; k += 16) {
    __m512 values = _mm512_loadu_ps(x + k);
    if (nibbles) {
      values = _mm512_permutexvar_ps(order, values);
    }
    values = fits ? _mm512_mul_ps(values, inverse) : _mm512_setzero_ps();
    const __m512i integers = _mm512_cvtps_epi32(values);
    total = _mm512_add_epi32(total, integers);
    alignas(64) int32_t quads[4][4];
    _mm512_store_si512(
        quads,
        _mm512_shuffle_epi8(
            _mm512_xor_si512(_mm512_add_epi32(integers, offset), offset),
            split));
    for (int64_t q = 0; q < 4; ++q) {
      int32_t* to = digits + (k / 4 + q) * step;
      to[0] = quads[q][0];
      to[digit] = quads[q][1];
      to[2 * digit] = quads[q][2];
    }
  }
  *sum = *scale * static_cast<float>(_mm512_reduce_add_epi32(total));
  return fits;
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
