// SPDX-License-Identifier: MIT
// matvec() of matrices in blocks, for AVX-512 with VNNI: rows in lanes, so that
// a group costs few operations besides its products, and memory is one stream.
// Up to eight vectors go over a block together. Each product takes its digits
// from memory, one four of them for all lanes: on Emerald Rapids that runs at
// the peak of vpdpbusd, one load and one of two ports each.

#if defined(ZMLX_COMMON_MATVEC_BLOCKS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_MATVEC_BLOCKS_INL_H
#undef ZMLX_COMMON_MATVEC_BLOCKS_INL_H
#else
#define ZMLX_COMMON_MATVEC_BLOCKS_INL_H
#endif

#include <algorithm>

#include <immintrin.h>

#include "zmlx/kernels/common/float_tile-inl.h"
#include "zmlx/kernels/common/integer_group-inl.h"
#include "zmlx/kernels/common/lines_ahead-inl.h"
#include "zmlx/kernels/common/matvec.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

// Vectors that pass over a block together: three sums each for one vector of
// lanes fill the registers.
constexpr int kBlockVectors = kSanitized ? 2 : 8;

/// A group's dot products of integers to floats, for 16 rows: the sums of the
/// middle, low and high digits.
HWY_INLINE __m512 join_digits(__m512i middle, __m512i low, __m512i high) {
  // The high digit goes its own way: shifted it would not fit.
  const __m512i rest = _mm512_add_epi32(_mm512_slli_epi32(middle, 8), low);
  return _mm512_fmadd_ps(
      _mm512_cvtepi32_ps(high),
      _mm512_set1_ps(65536),
      _mm512_cvtepi32_ps(rest));
}

/// The scales and biases of 16 rows of a block for the group that is the first
/// in `words`.
template <Scheme kScheme>
HWY_INLINE Halves halves_of(FloatType type, __m512i words) {
  if constexpr (kScheme == Scheme::Affine) {
    return Halves(type, words);
  } else {
    return Halves(kScheme, words);
  }
}

/// Adds the products of a group of kLanes times 16 rows with kCount vectors to
/// their sums (vector, digit, lanes). stride: words from a block to the next;
/// at: where the digits of the group start; ask() is called before each word.
template <int kCount, int kLanes, int kBits, bool kFloats, class Ask>
HWY_INLINE void add_products(
    const uint32_t* words,
    int64_t stride,
    int64_t fields,
    const int32_t* const* digits,
    int64_t at,
    const Ask& ask,
    __m512i (&sums)[3 * kLanes * kCount]) {
  constexpr int kSteps = kBits == 4 ? 2 : 1; // of four columns, a word
  for (int64_t k = 0; k < fields; ++k, words += kBlockRows, at += 3 * kSteps) {
    ask(words);
    unrolled<kSteps>([&](auto step) ZMLX_INLINE_LAMBDA {
      __m512i bytes[kLanes];
      unrolled<kLanes>([&](auto i) ZMLX_INLINE_LAMBDA {
        const __m512i v =
            _mm512_loadu_si512(words + i / 2 * stride + i % 2 * 16);
        bytes[i] = kBits == 8 ? v
            : step == 0       ? low_nibbles<kFloats>(v)
                              : high_nibbles<kFloats>(v);
      });
      unrolled<kCount>([&](auto t) ZMLX_INLINE_LAMBDA {
        unrolled<3>([&](auto d) ZMLX_INLINE_LAMBDA {
          const int32_t* digit = digits[t] + at + 3 * step + d;
          if constexpr (kLanes >= 4) {
            const __m512i shared = _mm512_set1_epi32(*digit);
            unrolled<kLanes>([&](auto i) ZMLX_INLINE_LAMBDA {
              dot_bytes(sums[(3 * t + d) * kLanes + i], bytes[i], shared);
            });
          } else {
            unrolled<kLanes>([&](auto i) ZMLX_INLINE_LAMBDA {
              dot_bytes(sums[(3 * t + d) * kLanes + i], bytes[i], digit);
            });
          }
        });
      });
    });
  }
}

/// y[t * kBlocks + b][row] for the rows of kBlocks blocks from `words` on.
template <int kCount, int kBlocks, int kBits, Scheme kScheme>
HWY_NOINLINE void multiply_block(
    const PackedMatrix& w,
    const uint32_t* words,
    const int32_t* const* vectors,
    LinesAhead<kBlocks>& ahead_of,
    float (*y)[kBlockRows]) {
  constexpr bool kAffine = kScheme == Scheme::Affine;
  constexpr int kLanes = 2 * kBlocks; // vectors of 16 rows
  // Those whose sums are in registers at a time.
  constexpr int kTogether = kCount == 1 ? kLanes : kCount <= 4 ? 2 : 1;
  const int64_t fields = w.words_per_group(), steps = w.group_size / 4;
  const int64_t stride = w.block_words();
  const FloatType type = w.float_type;
  const int32_t* x[kCount]; // in registers, as this:
  std::copy_n(vectors, kCount, x);
  LinesAhead<kBlocks> ahead = ahead_of;
  __m512 total[kLanes * kCount];
  unrolled<kLanes * kCount>(
      [&](auto i) ZMLX_INLINE_LAMBDA { total[i] = _mm512_setzero_ps(); });
  const int64_t groups = w.groups_per_row();
  __m512i floats[kLanes];
  int64_t at = 0;
  for (int64_t g = 0; g < groups; ++g) {
    if (kAffine || g % 4 == 0) {
      ahead.turn(words);
      ahead.ask(words);
      unrolled<kLanes>([&](auto i) ZMLX_INLINE_LAMBDA {
        floats[i] = _mm512_loadu_si512(words + i / 2 * stride + i % 2 * 16);
      });
      words += kBlockRows;
    }
    unrolled<kLanes / kTogether>([&](auto part) ZMLX_INLINE_LAMBDA {
      __m512i sums[3 * kTogether * kCount]; // (vector, digit, lanes)
      unrolled<3 * kTogether * kCount>(
          [&](auto i) ZMLX_INLINE_LAMBDA { sums[i] = _mm512_setzero_si512(); });
      add_products<kCount, kTogether, kBits, !kAffine>(
          words + part * kTogether / 2 * stride + part * kTogether % 2 * 16,
          stride,
          fields,
          x,
          at,
          [&](const uint32_t* from) ZMLX_INLINE_LAMBDA {
            if constexpr (part == 0) {
              ahead.ask(from);
            }
          },
          sums);
      const int64_t end = at + 3 * steps;
      unrolled<kTogether>([&](auto i) ZMLX_INLINE_LAMBDA {
        constexpr int lane = part * kTogether + i;
        const Halves of_rows = halves_of<kScheme>(type, floats[lane]);
        unrolled<kCount>([&](auto t) ZMLX_INLINE_LAMBDA {
          const auto* values = reinterpret_cast<const float*>(x[t] + end);
          const __m512 dot = join_digits(
              sums[3 * t * kTogether + i],
              sums[(3 * t + 1) * kTogether + i],
              sums[(3 * t + 2) * kTogether + i]);
          __m512& sum = total[kLanes * t + lane];
          sum = _mm512_fmadd_ps(
              _mm512_mul_ps(dot, _mm512_set1_ps(values[0])),
              of_rows.scale,
              sum);
          sum = _mm512_fmadd_ps(of_rows.bias, _mm512_set1_ps(values[1]), sum);
        });
        if constexpr (!kAffine) {
          floats[lane] = _mm512_srli_epi32(floats[lane], 8);
        }
      });
    });
    words += fields * kBlockRows;
    at += 3 * steps + 2;
  }
  ahead_of = ahead;
  unrolled<kLanes * kCount>([&](auto i) ZMLX_INLINE_LAMBDA {
    _mm512_storeu_ps(y[i / 2] + i % 2 * 16, total[i]);
  });
}

/// Rows [begin, end) times kCount vectors.
template <int kCount, int kBlocks, int kBits, Scheme kScheme>
void multiply_range(
    const PackedMatrix& w,
    const int32_t* const* x,
    int64_t begin,
    int64_t end,
    float* const* y,
    LinesAhead<kBlocks>& ahead) {
  const int64_t words = w.block_words();
  const uint32_t* block = w.block(begin);
  alignas(64) float out[kCount * kBlocks][kBlockRows];
  for (int64_t first = begin / kBlockRows * kBlockRows; first < end;
       first += kBlocks * kBlockRows, block += kBlocks * words) {
    multiply_block<kCount, kBlocks, kBits, kScheme>(w, block, x, ahead, out);
    const int64_t from = std::max(begin, first);
    const int64_t to = std::min(end, first + kBlocks * kBlockRows);
    for (int t = 0; t < kCount; ++t) {
      const float* values = out[t * kBlocks];
      std::copy(
          values + (from - first),
          values + (to - first),
          y[t] + (from - begin));
    }
  }
}

/// The same for any format.
template <int kCount, int kBlocks>
void multiply_range(
    const PackedMatrix& w,
    const int32_t* const* x,
    int64_t begin,
    int64_t end,
    float* const* y,
    LinesAhead<kBlocks>& ahead) {
  const auto multiply = [&](auto bits, auto scheme) {
    multiply_range<kCount, kBlocks, bits, scheme>(w, x, begin, end, y, ahead);
  };
  const std::integral_constant<int, 4> four;
  if (w.scheme == Scheme::MXFP4) {
    multiply(four, std::integral_constant<Scheme, Scheme::MXFP4>());
  } else if (w.scheme == Scheme::NVFP4) {
    multiply(four, std::integral_constant<Scheme, Scheme::NVFP4>());
  } else if (w.bits == 4) {
    multiply(four, std::integral_constant<Scheme, Scheme::Affine>());
  } else {
    multiply(
        std::integral_constant<int, 8>(),
        std::integral_constant<Scheme, Scheme::Affine>());
  }
}

/// With kPairs two blocks at a time, as far as possible, which share digits
/// that are in L1 (or, of one vector, in registers; its sums, twice as many,
/// then wait less for one another). From memory one stream is read faster.
template <int kCount, bool kPairs>
void multiply_range(
    const PackedMatrix& w,
    const int32_t* const* x,
    int64_t begin,
    int64_t end,
    float* const* y,
    const RowsAhead& next) {
  constexpr int64_t kPair = 2 * kBlockRows;
  float* out[kCount];
  std::copy_n(y, kCount, out);
  if constexpr (kPairs) {
    while (begin % kBlockRows == 0 && begin + kPair <= end) {
      const int64_t then = begin + kPair;
      LinesAhead<2> ahead(
          w,
          w.block(begin),
          w.block(begin + kBlockRows),
          then < end ? RowsAhead(w, then) : next);
      multiply_range<kCount>(w, x, begin, then, out, ahead);
      for (float*& values : out) {
        values += kPair;
      }
      begin = then;
    }
  }
  if (begin < end) {
    LinesAhead<1> ahead(w, w.block(begin), w.block(end + kBlockRows - 1), next);
    multiply_range<kCount>(w, x, begin, end, out, ahead);
  }
}

/// Any number of vectors, in passes over the rows.
void multiply_ranges(
    const PackedMatrix& w,
    const int32_t* const* x,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    const RowsAhead& next) {
  const int64_t passes = (count + kBlockVectors - 1) / kBlockVectors;
  for (int64_t pass = 0; pass < passes; ++pass) {
    // As equal as can be: nine are five and four.
    const int64_t i = count * pass / passes;
    const int64_t here = count * (pass + 1) / passes - i;
    const auto then = pass + 1 < passes ? RowsAhead(w, begin) : next;
    with_constant<kBlockVectors>(here, [&](auto size) {
      // With many passes nearly all of them find the rows in L2.
      constexpr bool kMany = size > kBlockVectors / 2;
      if (kMany && passes > 2) {
        multiply_range<size, kMany>(w, x + i, begin, end, y + i, then);
      } else {
        multiply_range<size, size == 1>(w, x + i, begin, end, y + i, then);
      }
    });
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
