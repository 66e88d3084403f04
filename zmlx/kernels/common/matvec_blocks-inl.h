// SPDX-License-Identifier: MIT
// matvec() of matrices in blocks, for AVX-512 with VNNI: rows in lanes, so that
// a group costs few operations besides its products, and memory is one stream.

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
#include "zmlx/kernels/common/matvec.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

// Vectors that pass over a block together: three sums each for two vectors of
// lanes fill the registers.
constexpr int kBlockVectors = kSanitized ? 2 : 4;

// Intel's cores have few misses of L1 under way at once, and more of L2: there,
// lines are asked for twice.
inline bool asks_twice() {
  static const bool intel = [] {
    __builtin_cpu_init();
    return __builtin_cpu_is("intel") != 0;
  }();
  return intel;
}

/// Lines asked for ahead of their use: those of kBlocks blocks that are read
/// side by side, each in the order of memory, and past their ends those that
/// come next (or, again, the first).
template <int kBlocks>
class LinesAhead {
 public:
  /// From `from` on until `end`, where the first block ends.
  LinesAhead(
      const PackedMatrix& w,
      const uint32_t* from,
      const uint32_t* end,
      const RowsAhead& next)
      : twice_(asks_twice()),
        ahead_(twice_ ? kFar : kOnce / kBlocks),
        second_(4 * w.block_words()),
        end_(reinterpret_cast<const char*>(end) - ahead_),
        jump_(
            static_cast<const char*>(
                next.words ? next.words : static_cast<const void*>(from)) -
            reinterpret_cast<const char*>(end)),
        second_then_(next.words ? next.second : second_) {}

  /// Asks for two lines of each block, where `words` are now read.
  HWY_INLINE void ask(const uint32_t* words) const {
    const auto* at = reinterpret_cast<const char*>(words);
    if (twice_) {
      two<_MM_HINT_T1>(at + ahead_);
      two<_MM_HINT_T0>(at + kNear);
    } else {
      two<_MM_HINT_T0>(at + ahead_);
    }
  }
  /// Called before each unit.
  HWY_INLINE void turn(const uint32_t* words) {
    if (reinterpret_cast<const char*>(words) >= end_) {
      ahead_ += jump_;
      second_ = second_then_;
      end_ = reinterpret_cast<const char*>(INTPTR_MAX);
    }
  }

 private:
  // Of a plain read, 900 MB by two cores: on Zen 5, once into L1 from 4 kB to
  // 12 kB ahead 90%; on Emerald Rapids that 77%, into L2 16 kB ahead 84%, and
  // into L1 besides 91%.
  static constexpr int64_t kOnce = 8192, kFar = 16384, kNear = 2048;

  template <auto kHint> // an enumerator of GCC's, an int of Clang's
  HWY_INLINE void two(const char* at) const {
    _mm_prefetch(at, kHint);
    _mm_prefetch(at + 64, kHint);
    if constexpr (kBlocks == 2) {
      _mm_prefetch(at + second_, kHint);
      _mm_prefetch(at + second_ + 64, kHint);
    }
  }

  bool twice_;
  int64_t ahead_, second_; // bytes from what is read, and to the other block
  const char* end_;
  int64_t jump_, second_then_;
};

/// The same where several passes go over a block: by turns, each asks for its
/// share of the units of the block that comes next, so that memory works during
/// all of them.
class LinesInTurns {
 public:
  LinesInTurns(const void* next, int64_t pass, int64_t passes, int64_t bytes)
      : next_(static_cast<const char*>(next)),
        bytes_(bytes),
        wait_(pass),
        passes_(passes) {}

  HWY_INLINE void ask(const uint32_t*) {
    _mm_prefetch(at_, _MM_HINT_T1);
    _mm_prefetch(at_ + 64, _MM_HINT_T1);
    at_ += step_;
  }
  HWY_INLINE void turn(const uint32_t*) {
    at_ = next_;
    next_ += bytes_;
    step_ = wait_ == 0 ? 128 : 0; // else the same two lines again and again
    wait_ = wait_ == 0 ? passes_ - 1 : wait_ - 1;
  }

 private:
  const char *next_, *at_ = nullptr;
  int64_t bytes_; // of a unit
  int64_t step_ = 0, wait_, passes_;
};

/// The vectors of one pass.
template <int kCount>
struct BlockVectors {
  const int32_t* digits[kCount];
  const float *scales[kCount], *sums[kCount];

  explicit BlockVectors(const PreparedVector* const* x) {
    for (int t = 0; t < kCount; ++t) {
      digits[t] = reinterpret_cast<const int32_t*>(x[t]->digits());
      scales[t] = x[t]->group_scales();
      sums[t] = x[t]->group_sums();
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

/// Adds a group's products of 16 rows to `total`. floats: the word of scales of
/// each row, those of this group at its low end; x_sum: of the vector's values.
template <Scheme kScheme>
HWY_INLINE __m512 add_group(
    FloatType type,
    __m512i floats,
    __m512 dot,
    float x_scale,
    float x_sum,
    __m512 total) {
  const __m512 scaled = _mm512_mul_ps(dot, _mm512_set1_ps(x_scale));
  const __m512 sum = _mm512_set1_ps(x_sum);
  if constexpr (kScheme == Scheme::Affine) {
    const Halves of_rows(type, floats);
    return _mm512_fmadd_ps(
        of_rows.bias, sum, _mm512_fmadd_ps(scaled, of_rows.scale, total));
  } else {
    const __m512 values =
        _mm512_fnmadd_ps(sum, _mm512_set1_ps(kE2m1Offset), scaled);
    return _mm512_fmadd_ps(values, half_scales<kScheme>(floats), total);
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
  constexpr int kSteps = kBits == 4 ? 2 : 1; // of four columns, a word
  constexpr int kLanes = 2 * kBlocks; // vectors of 16 rows
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
  const auto load = [&](__m512i* to) ZMLX_INLINE_LAMBDA {
    unrolled<kLanes>([&](auto i) ZMLX_INLINE_LAMBDA {
      to[i] = _mm512_loadu_si512(words + i / 2 * stride + i % 2 * 16);
    });
  };
  for (int64_t g = 0; g < groups; ++g) {
    if (kAffine || g % 4 == 0) {
      ahead.turn(words);
      ahead.ask(words);
      load(floats);
      words += kBlockRows;
    }
    __m512i sums[3 * kLanes * kCount]; // (vector, digit, lanes)
    unrolled<3 * kLanes * kCount>(
        [&](auto i) ZMLX_INLINE_LAMBDA { sums[i] = _mm512_setzero_si512(); });
    for (int64_t k = 0; k < fields; ++k, words += kBlockRows) {
      ahead.ask(words);
      __m512i v[kLanes];
      load(v);
      unrolled<kSteps>([&](auto step) ZMLX_INLINE_LAMBDA {
        if constexpr (kBlocks == 2 && step > 0) {
          // Loaded anew: GCC would unpack all at once and run out of registers.
          // One block's sums it would put into memory.
          asm volatile("" ::: "memory");
          load(v);
        }
        __m512i bytes[kLanes];
        unrolled<kLanes>([&](auto i) ZMLX_INLINE_LAMBDA {
          bytes[i] = kBits == 4
              ? low_nibbles<!kAffine>(
                    step == 0 ? v[i] : _mm512_srli_epi16(v[i], 4))
              : v[i];
        });
        unrolled<kCount>([&](auto t) ZMLX_INLINE_LAMBDA {
          const int32_t* digits =
              x.digits[t] + g * 3 * steps + k * kSteps + step;
          unrolled<3>([&](auto d) ZMLX_INLINE_LAMBDA {
            const __m512i digit = _mm512_set1_epi32(digits[d * steps]);
            unrolled<kLanes>([&](auto i) ZMLX_INLINE_LAMBDA {
              dot_bytes(sums[(3 * t + d) * kLanes + i], bytes[i], digit);
            });
          });
        });
      });
    }
    unrolled<kLanes>([&](auto i) ZMLX_INLINE_LAMBDA {
      unrolled<kCount>([&](auto t) ZMLX_INLINE_LAMBDA {
        total[kLanes * t + i] = add_group<kScheme>(
            type,
            floats[i],
            join_digits(
                sums[3 * t * kLanes + i],
                sums[(3 * t + 1) * kLanes + i],
                sums[(3 * t + 2) * kLanes + i]),
            x.scales[t][g],
            x.sums[t][g],
            total[kLanes * t + i]);
      });
      if constexpr (!kAffine) {
        floats[i] = _mm512_srli_epi32(floats[i], 8);
      }
    });
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
