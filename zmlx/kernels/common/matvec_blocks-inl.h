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
#include <iterator>
#include <vector>

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

/// The vectors of one pass: where the digits, scales and sums of each are.
template <int kCount>
struct BlockVectors {
  const int32_t* digits[kCount];

  explicit BlockVectors(const PreparedVector* const* x) {
    for (int t = 0; t < kCount; ++t) {
      digits[t] = reinterpret_cast<const int32_t*>(x[t]->digits());
    }
  }
};

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
        bytes[i] = kBits == 4
            ? low_nibbles<kFloats>(step == 0 ? v : _mm512_srli_epi16(v, 4))
            : v;
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
template <int kCount, int kBlocks, int kBits, Scheme kScheme, class Ahead>
HWY_NOINLINE void multiply_block(
    const PackedMatrix& w,
    const uint32_t* words,
    const BlockVectors<kCount>& vectors,
    Ahead& ahead_of,
    float (*y)[kBlockRows]) {
  constexpr bool kAffine = kScheme == Scheme::Affine;
  constexpr int kLanes = 2 * kBlocks; // vectors of 16 rows
  // Those whose sums are in registers at a time.
  constexpr int kTogether = kCount <= 4 ? kLanes : 1;
  const int64_t fields = w.words_per_group(), steps = w.group_size / 4;
  const int64_t stride = w.block_words();
  const FloatType type = w.float_type;
  const BlockVectors<kCount> x = vectors; // in registers, as this:
  Ahead ahead = ahead_of;
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
          words + part * 16,
          stride,
          fields,
          x.digits,
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
          const auto* values =
              reinterpret_cast<const float*>(x.digits[t] + end);
          const __m512 dot = join_digits(
              sums[3 * t * kTogether + i],
              sums[(3 * t + 1) * kTogether + i],
              sums[(3 * t + 2) * kTogether + i]);
          __m512& sum = total[kLanes * t + lane];
          sum = _mm512_fmadd_ps(
              _mm512_mul_ps(dot, _mm512_set1_ps(values[0])),
              of_rows.scale,
              _mm512_fmadd_ps(of_rows.bias, _mm512_set1_ps(values[1]), sum));
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
template <int kCount, int kBlocks, int kBits, Scheme kScheme, class Ahead>
void multiply_blocks(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t begin,
    int64_t end,
    float* const* y,
    Ahead& ahead) {
  const BlockVectors<kCount> vectors(x);
  const int64_t words = w.block_words();
  const uint32_t* block = w.block(begin);
  alignas(64) float out[kCount * kBlocks][kBlockRows];
  for (int64_t first = begin / kBlockRows * kBlockRows; first < end;
       first += kBlocks * kBlockRows, block += kBlocks * words) {
    multiply_block<kCount, kBlocks, kBits, kScheme>(
        w, block, vectors, ahead, out);
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
template <int kCount, int kBlocks, class Ahead>
void multiply_blocks(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t begin,
    int64_t end,
    float* const* y,
    Ahead& ahead) {
  const auto multiply = [&](auto bits, auto scheme) {
    multiply_blocks<kCount, kBlocks, bits, scheme>(w, x, begin, end, y, ahead);
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

/// `count` vectors, up to kBlockVectors.
template <class Ahead>
void multiply_blocks(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    Ahead& ahead) {
  with_constant<kBlockVectors>(count, [&](auto size) {
    multiply_blocks<size, 1>(w, x, begin, end, y, ahead);
  });
}

/// One vector, whose integers are sound: two blocks at a time share each digit,
/// and their sums, twice as many, wait less for one another.
void blocks_matvec_of_one(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t begin,
    int64_t end,
    float* y,
    const RowsAhead& next) {
  constexpr int64_t kPair = 2 * kBlockRows;
  while (begin % kBlockRows == 0 && begin + kPair <= end) {
    const int64_t then = begin + kPair;
    LinesAhead<2> ahead(
        w,
        w.block(begin),
        w.block(begin + kBlockRows),
        then < end ? RowsAhead(w, then) : next);
    multiply_blocks<1, 2>(w, x, begin, then, &y, ahead);
    y += kPair;
    begin = then;
  }
  if (begin < end) {
    LinesAhead<1> ahead(w, w.block(begin), w.block(end + kBlockRows - 1), next);
    multiply_blocks<1, 1>(w, x, begin, end, &y, ahead);
  }
}

/// Vectors whose integers are sound.
void blocks_matvec(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    const RowsAhead& next) {
  if (count == 1) {
    return blocks_matvec_of_one(w, x, begin, end, y[0], next);
  }
  if (count <= kBlockVectors) {
    LinesAhead<1> ahead(w, w.block(begin), w.block(end + kBlockRows - 1), next);
    multiply_blocks(w, x, count, begin, end, y, ahead);
    return;
  }
  const int64_t passes = (count + kBlockVectors - 1) / kBlockVectors;
  const int64_t bytes = 4 * w.block_unit_words();
  std::vector<float*> out(static_cast<size_t>(count));
  for (int64_t row = begin; row < end;) {
    const int64_t stop = std::min(end, (row / kBlockRows + 1) * kBlockRows);
    const void* then = stop < end ? w.block(stop)
        : next.words              ? next.words
                                  : w.block(row);
    for (int64_t i = 0; i < count; ++i) {
      out[i] = y[i] + (row - begin);
    }
    for (int64_t pass = 0; pass < passes; ++pass) {
      // As equal as can be: nine are three times three.
      const int64_t i = count * pass / passes;
      const int64_t here = count * (pass + 1) / passes - i;
      LinesInTurns ahead(then, pass, passes, bytes);
      multiply_blocks(w, x + i, here, row, stop, out.data() + i, ahead);
    }
    row = stop;
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
