// SPDX-License-Identifier: MIT
// matvec() of MXFP4, NVFP4 and MXFP8 for AVX-512 with VNNI. Twice a field of
// four bits is a whole number from -12 to 12: 12 more make it a byte for the
// integer path, and 12 times the sum of the digits is taken off again, exactly.
// Fields of eight bits become halves, and floats.

#if defined(ZMLX_COMMON_MATVEC_FLOAT_FIELDS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_MATVEC_FLOAT_FIELDS_INL_H
#undef ZMLX_COMMON_MATVEC_FLOAT_FIELDS_INL_H
#else
#define ZMLX_COMMON_MATVEC_FLOAT_FIELDS_INL_H
#endif

#include "zmlx/kernels/common/chunk_vnni-inl.h"
#include "zmlx/kernels/common/float_fields-inl.h"
#include "zmlx/kernels/common/integer_group-inl.h"
#include "zmlx/kernels/common/matvec_vnni-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni")
namespace zmlx::cpu::HWY_NAMESPACE {

/// Scales of a chunk of 128 columns, one for each lane of 8, from groups of
/// kGroup.
template <Scheme kScheme>
struct ByteScales {
  static constexpr int64_t kGroups = kScheme == Scheme::NVFP4 ? 8 : 4;
  /// What load() must be multiplied by to become half the scales.
  static constexpr float kFactor = kScheme == Scheme::NVFP4 ? 128 : 0.5f;

  ByteScales() {
    constexpr int kLaneBytes = kScheme == Scheme::NVFP4 ? 2 : 4;
    alignas(64) uint8_t bytes[64];
    std::fill_n(bytes, 64, uint8_t{0x80});
    for (int lane = 0; lane < 16; ++lane) {
      bytes[kLaneBytes * (lane + 1) - 1] =
          static_cast<uint8_t>(lane * kGroups / 16);
    }
    to_top_ = _mm512_load_si512(bytes);
  }

  HWY_INLINE __m512 load(const char* first) const {
    if constexpr (kScheme == Scheme::NVFP4) {
      int64_t eight;
      std::memcpy(&eight, first, 8);
      return e4m3_halves(_mm256_shuffle_epi8(
          _mm256_set1_epi64x(eight), _mm512_castsi512_si256(to_top_)));
    } else {
      int32_t four;
      std::memcpy(&four, first, 4);
      const __m512i top = _mm512_shuffle_epi8(_mm512_set1_epi32(four), to_top_);
      // 2^-127 is not a normal number.
      return _mm512_castsi512_ps(_mm512_max_epu32(
          _mm512_srli_epi32(top, 1), _mm512_set1_epi32(0x00400000)));
    }
  }

 private:
  __m512i to_top_;
};

template <Scheme kScheme>
class FourBitRows {
 public:
  FourBitRows(const PackedMatrix& w, const PreparedVector& x)
      : w_(w),
        digits_(reinterpret_cast<const __m512i*>(x.digits())),
        x_scales_(x.lane_scales()),
        chunks_((w.cols + 127) / 128),
        last_groups_(
            w.groups_per_row() - (chunks_ - 1) * ByteScales<kScheme>::kGroups) {
    table_ = _mm512_broadcast_i32x4(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(kE2m1Bytes.data())));
    static thread_local AlignedVector<int32_t> sums;
    sums.resize(static_cast<size_t>(16 * chunks_));
    const __m512i twelve = _mm512_set1_epi8(kE2m1Offset);
    for (int64_t c = 0; c < chunks_; ++c) {
      _mm512_store_si512(
          sums.data() + 16 * c, dot_pairs(twelve, twelve, digits_ + 6 * c));
    }
    offsets_ = sums.data();
  }

  /// kRows rows from `row` on, 0 <= row < w.rows.
  template <int kRows>
  HWY_INLINE void dot(int64_t row, LinesAhead<1>& ahead, float* y) const {
    const char* words = reinterpret_cast<const char*>(w_.row_words(row));
    const char* scales = static_cast<const char*>(w_.row_scales(row));
    const int64_t words_stride = 4 * w_.words_per_row();
    const int64_t scales_stride = w_.groups_per_row();
    __m512 total[kRows];
    for (int r = 0; r < kRows; ++r) {
      total[r] = _mm512_setzero_ps();
      prefetch_line(scales + (kPrefetchRows + r) * scales_stride);
    }
    const int64_t whole = w_.cols / 128;
    for (int64_t c = 0; c < whole; ++c) {
      const __m512 x_scale = chunk_scale(c);
      const __m512i offset = _mm512_load_si512(offsets_ + 16 * c);
      for (int r = 0; r < kRows; ++r) {
        ahead.ask<1>(words + 64 * (kRows * c + r));
        total[r] = _mm512_fmadd_ps(
            chunk(
                _mm512_loadu_si512(words + r * words_stride + 64 * c),
                c,
                offset),
            _mm512_mul_ps(
                scales_.load(
                    scales + r * scales_stride +
                    ByteScales<kScheme>::kGroups * c),
                x_scale),
            total[r]);
      }
    }
    if (whole < chunks_) {
      const auto mask = static_cast<__mmask16>((1u << w_.cols % 128 / 8) - 1);
      for (int r = 0; r < kRows; ++r) {
        char padded[8] = {};
        std::memcpy(
            padded,
            scales + r * scales_stride + ByteScales<kScheme>::kGroups * whole,
            static_cast<size_t>(last_groups_));
        total[r] = _mm512_fmadd_ps(
            chunk(
                _mm512_maskz_loadu_epi32(
                    mask, words + r * words_stride + 64 * whole),
                whole,
                _mm512_load_si512(offsets_ + 16 * whole)),
            _mm512_mul_ps(scales_.load(padded), chunk_scale(whole)),
            total[r]);
      }
    }
    ahead.turn(words + kRows * words_stride);
    if constexpr (kRows == 4) {
      store_sums(y, total[0], total[1], total[2], total[3]);
    } else {
      store_sums(y, total[0]);
    }
  }

 private:
  HWY_INLINE __m512 chunk_scale(int64_t c) const {
    return _mm512_mul_ps(
        _mm512_load_ps(x_scales_ + 16 * c),
        _mm512_set1_ps(ByteScales<kScheme>::kFactor));
  }
  HWY_INLINE __m512 chunk(__m512i words, int64_t c, __m512i offset) const {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i even =
        _mm512_shuffle_epi8(table_, _mm512_and_si512(words, mask));
    const __m512i odd = _mm512_shuffle_epi8(
        table_, _mm512_and_si512(_mm512_srli_epi16(words, 4), mask));
    return _mm512_cvtepi32_ps(
        _mm512_sub_epi32(dot_pairs(even, odd, digits_ + 6 * c), offset));
  }

  const PackedMatrix& w_;
  const __m512i* digits_;
  const float* x_scales_;
  int64_t chunks_, last_groups_;
  const int32_t* offsets_; // of a chunk: 12 times the digits of each lane
  ByteScales<kScheme> scales_;
  __m512i table_;
};

class EightBitRows {
 public:
  EightBitRows(const PackedMatrix& w, const PreparedVector& x)
      : w_(w), x_(x.values()) {}

  template <int kRows>
  HWY_INLINE void dot(int64_t row, LinesAhead<1>& ahead, float* y) const {
    const char* fields = reinterpret_cast<const char*>(w_.row_words(row));
    const auto* scales = static_cast<const uint8_t*>(w_.row_scales(row));
    const int64_t stride = w_.cols, groups = w_.groups_per_row();
    __m512 total[kRows];
    for (int r = 0; r < kRows; ++r) {
      total[r] = _mm512_setzero_ps();
      prefetch_line(scales + (kPrefetchRows + r) * groups);
    }
    for (int64_t g = 0; g < groups; ++g) {
      const __m512 x0 = _mm512_loadu_ps(x_ + 32 * g);
      const __m512 x1 = _mm512_loadu_ps(x_ + 32 * g + 16);
      for (int r = 0; r < kRows; ++r) {
        if (r < (kRows + 1) / 2) {
          ahead.ask<1>(fields + 32 * kRows * g + 64 * r);
        }
        const __m512i halves = to_halves(fields + r * stride + 32 * g);
        const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
        const __m512 high =
            _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
        total[r] = _mm512_fmadd_ps(
            _mm512_fmadd_ps(high, x1, _mm512_mul_ps(low, x0)),
            _mm512_set1_ps(kE8m0[scales[r * groups + g]]),
            total[r]);
      }
    }
    ahead.turn(fields + kRows * stride);
    for (int r = 0; r < kRows; ++r) {
      total[r] = _mm512_mul_ps(total[r], _mm512_set1_ps(256));
    }
    if constexpr (kRows == 4) {
      store_sums(y, total[0], total[1], total[2], total[3]);
    } else {
      store_sums(y, total[0]);
    }
  }

 private:
  /// 32 fields as halves of a 256th: the exponents differ by 8.
  static HWY_INLINE __m512i to_halves(const char* fields) {
    const __m512i wide = _mm512_cvtepi8_epi16(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(fields)));
    // The sign fills the top bits; one of them is the exponent's.
    const __m512i halves = _mm512_andnot_si512(
        _mm512_set1_epi16(0x4000), _mm512_slli_epi16(wide, 7));
    const __m512i ones = _mm512_set1_epi16(0x3f80);
    const __mmask32 nan =
        _mm512_cmpeq_epi16_mask(_mm512_and_si512(halves, ones), ones);
    return _mm512_mask_mov_epi16(halves, nan, _mm512_set1_epi16(0x7e00));
  }

  const PackedMatrix& w_;
  const float* x_;
};

template <class Rows>
void float_fields_rows(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    const RowsAhead& next) {
  const Rows rows(w, x);
  LinesAhead<1> ahead(w, w.row_words(begin), w.row_words(end), next);
  int64_t row = begin;
  for (; row + kRowsAtOnce <= end; row += kRowsAtOnce) {
    rows.template dot<kRowsAtOnce>(row, ahead, y + (row - begin));
  }
  for (; row < end; ++row) {
    rows.template dot<1>(row, ahead, y + (row - begin));
  }
}

inline void float_fields_matvec(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    const RowsAhead& next) {
  if (w.scheme == Scheme::MXFP4) {
    float_fields_rows<FourBitRows<Scheme::MXFP4>>(w, x, begin, end, y, next);
  } else if (w.scheme == Scheme::NVFP4) {
    float_fields_rows<FourBitRows<Scheme::NVFP4>>(w, x, begin, end, y, next);
  } else {
    float_fields_rows<EightBitRows>(w, x, begin, end, y, next);
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
