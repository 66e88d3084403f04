// SPDX-License-Identifier: MIT
// The integer path of matvec() for AVX-512 with VNNI: a walk over rows, four at
// once, chunk by chunk.

#if defined(ZMLX_COMMON_MATVEC_VNNI_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_MATVEC_VNNI_INL_H
#undef ZMLX_COMMON_MATVEC_VNNI_INL_H
#else
#define ZMLX_COMMON_MATVEC_VNNI_INL_H
#endif

#include <immintrin.h>

#include "zmlx/kernels/common/chunk_vnni-inl.h"
#include "zmlx/kernels/common/lines_ahead-inl.h"
#include "zmlx/kernels/common/matvec_generic-inl.h"

HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni")
namespace zmlx::cpu::HWY_NAMESPACE {

constexpr int kRowsAtOnce = 4;
constexpr int kPrefetchRows = 16; // of scales and biases

HWY_INLINE void prefetch_line(const void* address) {
  _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0);
}

/// total + biases * sums over a row's groups, by lanes.
template <FloatType kType>
HWY_INLINE __m512
add_biases(__m512 total, const void* biases, const float* sums, int64_t n) {
  for (int64_t g = 0; g < n; g += 16) {
    const int64_t left = n - g;
    const __mmask16 mask = left >= 16
        ? static_cast<__mmask16>(0xffff)
        : static_cast<__mmask16>((1u << left) - 1);
    __m512 values;
    if (kType == FloatType::F32) {
      values =
          _mm512_maskz_loadu_ps(mask, static_cast<const float*>(biases) + g);
    } else {
      const __m256i halves = _mm256_maskz_loadu_epi16(
          mask, static_cast<const uint16_t*>(biases) + g);
      values = kType == FloatType::BF16
          ? _mm512_castsi512_ps(
                _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))
          : _mm512_cvtph_ps(halves);
    }
    total =
        _mm512_fmadd_ps(values, _mm512_maskz_loadu_ps(mask, sums + g), total);
  }
  return total;
}

HWY_INLINE __m256 add_halves(__m512 v) {
  return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

/// The sum of the lanes of each vector, in one order however many there are.
/// By value: a reference kept the sums in memory during the loop.
HWY_INLINE void store_sums(float* y, __m512 v) {
  const __m256 half = add_halves(v);
  const __m256 pairs = _mm256_hadd_ps(half, half);
  const __m256 fours = _mm256_hadd_ps(pairs, pairs);
  *y = _mm_cvtss_f32(_mm_add_ss(
      _mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1)));
}

HWY_INLINE void
store_sums(float* y, __m512 v0, __m512 v1, __m512 v2, __m512 v3) {
  const __m256 pairs01 = _mm256_hadd_ps(add_halves(v0), add_halves(v1));
  const __m256 pairs23 = _mm256_hadd_ps(add_halves(v2), add_halves(v3));
  const __m256 fours = _mm256_hadd_ps(pairs01, pairs23);
  _mm_storeu_ps(
      y,
      _mm_add_ps(
          _mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1)));
}

/// What is prefetched of a row's scales or biases: those some rows ahead, and
/// past the end what comes next (or, again, what is cached).
class Stream {
 public:
  Stream(const char* from, int64_t ahead, const char* end, const void* next)
      : at_(from),
        end_(end),
        next_(next ? static_cast<const char*>(next) : from) {
    skip(ahead);
  }
  HWY_INLINE void skip(int64_t bytes) {
    at_ += bytes;
    if (end_ && at_ >= end_) {
      at_ = next_ + (at_ - end_);
      end_ = nullptr;
    }
  }
  HWY_INLINE const char* at() const {
    return at_;
  }

 private:
  const char *at_, *end_, *next_;
};

/// A walk over rows of a matrix. Steps by addition: products of sizes for every
/// four rows cost a tenth of the time.
struct Walk {
  const char *words, *scales, *biases;
  int64_t words_stride, groups_stride; // bytes
  LinesAhead<1> words_ahead;
  Stream scales_ahead, biases_ahead;

  Walk(const PackedMatrix& w, int64_t begin, int64_t end, const RowsAhead& next)
      : words(reinterpret_cast<const char*>(w.row_words(begin))),
        scales(static_cast<const char*>(w.row_scales(begin))),
        biases(static_cast<const char*>(w.row_biases(begin))),
        words_stride(4 * w.words_per_row()),
        groups_stride(
            w.groups_per_row() * static_cast<int64_t>(size_of(w.float_type))),
        words_ahead(w, w.row_words(begin), w.row_words(end), next),
        scales_ahead(
            scales,
            kPrefetchRows * groups_stride,
            scales + (end - begin) * groups_stride,
            next.scales),
        biases_ahead(
            biases,
            kPrefetchRows * groups_stride,
            biases + (end - begin) * groups_stride,
            next.biases) {}

  HWY_INLINE void skip(int64_t rows) {
    words += rows * words_stride;
    scales += rows * groups_stride;
    biases += rows * groups_stride;
    words_ahead.turn(words);
    scales_ahead.skip(rows * groups_stride);
    biases_ahead.skip(rows * groups_stride);
  }
};

/// kRows rows. Plain loops of constant length over
/// local arrays: they stay in registers, which captures by reference did not.
template <int kBits, FloatType kType, int kGroups, int kRows>
HWY_INLINE void dot_rows(
    const PackedMatrix& w,
    const PreparedVector& x,
    const LaneScales<kType, kGroups>& scales_of,
    const Walk& rows,
    float* y) {
  constexpr int kColumns = kChunkColumns<kBits>;
  constexpr int kBytes = kChunkBytes<kBits>;
  constexpr int kDigits = 3 * kColumns / 64; // vectors of digits a chunk
  constexpr int kLines = (kRows * kBytes + 63) / 64; // of chunks of all rows
  const auto* digits = reinterpret_cast<const __m512i*>(x.digits());
  const float* x_scales = x.lane_scales();
  __m512 total[kRows];
  for (int r = 0; r < kRows; ++r) {
    total[r] = _mm512_setzero_ps();
    // A row's scales and biases are a cache line or so, each in a stream of its
    // own that the hardware is slow to follow.
    prefetch_line(rows.scales_ahead.at() + r * rows.groups_stride);
    prefetch_line(rows.biases_ahead.at() + r * rows.groups_stride);
  }
  const int64_t whole = w.cols / kColumns;
  for (int64_t chunk = 0; chunk < whole; ++chunk) {
    __m512i d[kDigits];
    for (int i = 0; i < kDigits; ++i) {
      d[i] = _mm512_load_si512(digits + kDigits * chunk + i);
    }
    const __m512 x_scale = _mm512_load_ps(x_scales + 16 * chunk);
    const char* words = rows.words + kBytes * chunk;
    const char* scales = rows.scales + scales_of.offset(chunk);
    for (int r = 0; r < kRows; ++r) {
      if (r < kLines) {
        // In the order of memory, not of use: rows follow one another.
        rows.words_ahead.ask<1>(rows.words + kRows * kBytes * chunk + 64 * r);
      }
      const __m512 scale = scales_of.load(scales + r * rows.groups_stride);
      total[r] = _mm512_fmadd_ps(
          chunk_dot<kBits>(
              load_chunk<kBits>(words + r * rows.words_stride, kBytes), d),
          _mm512_mul_ps(scale, x_scale),
          total[r]);
    }
  }
  if (const int64_t left = w.cols % kColumns; left != 0) {
    const int64_t groups = (left + w.group_size - 1) / w.group_size;
    for (int r = 0; r < kRows; ++r) {
      const __m512 scale = scales_of.load_last(
          rows.scales + scales_of.offset(whole) + r * rows.groups_stride,
          groups);
      total[r] = _mm512_fmadd_ps(
          chunk_dot<kBits>(
              load_chunk<kBits>(
                  rows.words + r * rows.words_stride + kBytes * whole,
                  left * kBits / 8),
              digits + kDigits * whole),
          _mm512_mul_ps(scale, _mm512_load_ps(x_scales + 16 * whole)),
          total[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    total[r] = add_biases<kType>(
        total[r],
        rows.biases + r * rows.groups_stride,
        x.group_sums(),
        w.groups_per_row());
  }
  if constexpr (kRows == 4) {
    store_sums(y, total[0], total[1], total[2], total[3]);
  } else {
    static_assert(kRows == 1);
    store_sums(y, total[0]);
  }
}

template <int kBits, FloatType kType, int kGroups>
void integer_rows(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    const RowsAhead& next) {
  const LaneScales<kType, kGroups> scales;
  Walk walk(w, begin, end, next);
  int64_t row = begin;
  for (; row + kRowsAtOnce <= end; row += kRowsAtOnce) {
    dot_rows<kBits, kType, kGroups, kRowsAtOnce>(
        w, x, scales, walk, y + (row - begin));
    walk.skip(kRowsAtOnce);
  }
  for (; row < end; ++row) {
    dot_rows<kBits, kType, kGroups, 1>(w, x, scales, walk, y + (row - begin));
    walk.skip(1);
  }
}

/// The same with the number of groups a chunk found from the group size.
template <int kBits, FloatType kType>
void integer_rows(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    const RowsAhead& next) {
  switch (kChunkColumns<kBits> / w.group_size) {
    case 4:
      return integer_rows<kBits, kType, 4>(w, x, begin, end, y, next);
    case 2:
      return integer_rows<kBits, kType, 2>(w, x, begin, end, y, next);
    case 0:
      return integer_rows<kBits, kType, 0>(w, x, begin, end, y, next);
    default:
      return integer_rows<kBits, kType, 1>(w, x, begin, end, y, next);
  }
}

template <FloatType kType>
void integer_matvec(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    const RowsAhead& next) {
  switch (w.bits) {
    case 2:
      return integer_rows<2, kType>(w, x, begin, end, y, next);
    case 3:
      return integer_rows<3, kType>(w, x, begin, end, y, next);
    case 4:
      return integer_rows<4, kType>(w, x, begin, end, y, next);
    case 5:
      return integer_rows<5, kType>(w, x, begin, end, y, next);
    case 6:
      return integer_rows<6, kType>(w, x, begin, end, y, next);
    default:
      return integer_rows<8, kType>(w, x, begin, end, y, next);
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
