// SPDX-License-Identifier: MIT
// The integer path of matvec() for AVX2: byte products through maddubs, which
// cannot saturate on four-bit factors.

#if defined(ZMLX_COMMON_MATVEC_AVX2_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_MATVEC_AVX2_INL_H
#undef ZMLX_COMMON_MATVEC_AVX2_INL_H
#else
#define ZMLX_COMMON_MATVEC_AVX2_INL_H
#endif

#include <immintrin.h>

#include "zmlx/kernels/common/matvec_generic-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

/// Sums of four products of unsigned four-bit and signed eight-bit values.
HWY_INLINE __m256i dot_four(__m256i nibbles, __m256i digits) {
  return _mm256_madd_epi16(
      _mm256_maddubs_epi16(nibbles, digits), _mm256_set1_epi16(1));
}

HWY_INLINE __m256i load_digits(const int8_t* digits) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(digits));
}

/// 32 bytes of nibbles (64 columns): a lane sums eight columns.
HWY_INLINE __m256 nibble_half(__m256i words, const int8_t* digits) {
  const __m256i mask = _mm256_set1_epi8(15);
  const __m256i even = _mm256_and_si256(words, mask);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi16(words, 4), mask);
  __m256i sum = _mm256_setzero_si256();
  for (int d = 0; d < 3; ++d) {
    // |even| + |odd| <= 4 * 15 * 128: still within 16 bits.
    const __m256i pairs = _mm256_add_epi16(
        _mm256_maddubs_epi16(even, load_digits(digits + 128 * d)),
        _mm256_maddubs_epi16(odd, load_digits(digits + 128 * d + 64)));
    sum = _mm256_add_epi32(
        _mm256_slli_epi32(sum, 8),
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  return _mm256_cvtepi32_ps(sum);
}

/// 32 bytes (32 columns): a lane sums four columns.
HWY_INLINE __m256 byte_half(__m256i bytes, const int8_t* digits) {
  const __m256i mask = _mm256_set1_epi8(15);
  const __m256i low = _mm256_and_si256(bytes, mask);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
  __m256i sums[3];
  for (int d = 0; d < 3; ++d) {
    const __m256i digit = load_digits(digits + 64 * d);
    sums[d] = _mm256_add_epi32(
        dot_four(low, digit), _mm256_slli_epi32(dot_four(high, digit), 4));
  }
  const __m256i lower =
      _mm256_add_epi32(_mm256_slli_epi32(sums[1], 8), sums[2]);
  return _mm256_fmadd_ps(
      _mm256_cvtepi32_ps(sums[0]),
      _mm256_set1_ps(65536),
      _mm256_cvtepi32_ps(lower));
}

/// One row whose fields are nibbles (kSpan 8 columns a lane) or bytes (4).
template <int kSpan>
HWY_INLINE float dot_row(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t row,
    const uint8_t* bytes) {
  constexpr int kColumns = 8 * kSpan; // half a chunk
  constexpr int kDigits = kSpan == 8 ? 384 : 192; // bytes of digits a chunk
  const void* scales = w.row_scales(row);
  __m256 total = _mm256_setzero_ps();
  for (int64_t half = 0; half * kColumns < w.cols; ++half) {
    __m256i words;
    const int64_t left = w.cols - half * kColumns;
    if (left >= kColumns) {
      words = _mm256_loadu_si256(
          reinterpret_cast<const __m256i*>(bytes + 32 * half));
    } else {
      alignas(32) uint8_t padded[32] = {};
      std::memcpy(
          padded, bytes + 32 * half, static_cast<size_t>(left * 4 / kSpan));
      words = _mm256_load_si256(reinterpret_cast<const __m256i*>(padded));
    }
    const int8_t* digits = x.digits() + half / 2 * kDigits + 32 * (half % 2);
    const __m256 dot =
        kSpan == 8 ? nibble_half(words, digits) : byte_half(words, digits);
    alignas(32) float lanes[8];
    for (int lane = 0; lane < 8; lane += 32 / kSpan) {
      const int64_t column =
          std::min(half * kColumns + lane * kSpan, w.cols - 1);
      std::fill_n(
          lanes + lane,
          32 / kSpan,
          load_float(scales, w.float_type, column / w.group_size));
    }
    const __m256 scale = _mm256_mul_ps(
        _mm256_load_ps(lanes), _mm256_load_ps(x.lane_scales() + 8 * half));
    total = _mm256_fmadd_ps(dot, scale, total);
  }
  alignas(32) float parts[8];
  _mm256_store_ps(parts, total);
  float sum = 0;
  for (float part : parts) {
    sum += part;
  }
  for (int64_t g = 0; g < w.groups_per_row(); ++g) {
    sum += load_float(w.row_biases(row), w.float_type, g) * x.group_sums()[g];
  }
  return sum;
}

template <FloatType kType>
void integer_matvec(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    const RowsAhead&) {
  AlignedVector<uint8_t> unpacked;
  for (int64_t row = begin; row < end; ++row) {
    const auto* words = reinterpret_cast<const uint8_t*>(w.row_words(row));
    if (w.bits != 4 && w.bits != 8) {
      unpacked.resize(static_cast<size_t>(w.cols));
      unpack(w.row_words(row), w.bits, w.cols, unpacked.data());
      words = unpacked.data();
    }
    if (!has_nibble_digits(w.bits)) {
      y[row - begin] = dot_row<4>(w, x, row, words);
      continue;
    }
    if (w.bits != 4) { // two bytes to one of nibbles
      for (int64_t i = 0; i < w.cols / 2; ++i) {
        unpacked[i] =
            static_cast<uint8_t>(unpacked[2 * i] | unpacked[2 * i + 1] << 4);
      }
    }
    y[row - begin] = dot_row<8>(w, x, row, words);
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
