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

/// Lines asked for ahead of their use, in the order of memory, and past the end
/// of the rows those that come next (or, again, the first).
class LinesAhead {
 public:
  LinesAhead(const uint32_t* from, const uint32_t* end, const void* next)
      : twice_(asks_twice()),
        next_(
            next ? static_cast<const char*>(next)
                 : reinterpret_cast<const char*>(from)),
        far_(from, end, twice_ ? kFar : kOnce),
        near_(from, end, kNear) {
    turn();
  }
  /// Asks for two lines.
  HWY_INLINE void ask() {
    if (twice_) {
      _mm_prefetch(far_.at, _MM_HINT_T1);
      _mm_prefetch(far_.at + 64, _MM_HINT_T1);
      _mm_prefetch(near_.at, _MM_HINT_T0);
      _mm_prefetch(near_.at + 64, _MM_HINT_T0);
      near_.at += 128;
    } else {
      _mm_prefetch(far_.at, _MM_HINT_T0);
      _mm_prefetch(far_.at + 64, _MM_HINT_T0);
    }
    far_.at += 128;
  }
  /// Called before each unit.
  HWY_INLINE void turn() {
    far_.turn(next_);
    near_.turn(next_);
  }

 private:
  // Of a plain read, 900 MB by two cores: on Zen 5, once into L1 from 4 kB to
  // 12 kB ahead 90%; on Emerald Rapids that 77%, into L2 16 kB ahead 84%, and
  // into L1 besides 91%.
  static constexpr int64_t kOnce = 8192, kFar = 16384, kNear = 2048;

  struct Cursor {
    const char *at, *end;

    Cursor(const uint32_t* from, const uint32_t* end, int64_t ahead)
        : at(reinterpret_cast<const char*>(from) + ahead),
          end(reinterpret_cast<const char*>(end)) {}
    HWY_INLINE void turn(const char* next) {
      if (end && at >= end) {
        at = next + (at - end);
        end = nullptr;
      }
    }
  };

  bool twice_;
  const char* next_;
  Cursor far_, near_;
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

  HWY_INLINE void ask() {
    _mm_prefetch(at_, _MM_HINT_T1);
    _mm_prefetch(at_ + 64, _MM_HINT_T1);
    at_ += step_;
  }
  HWY_INLINE void turn() {
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

/// y[t][row] for the rows of the block at `words`.
template <int kCount, int kBits, Scheme kScheme, class Ahead>
HWY_NOINLINE void multiply_block(
    const PackedMatrix& w,
    const uint32_t* words,
    const BlockVectors<kCount>& x,
    Ahead& ahead_of,
    float (*y)[kBlockRows]) {
  constexpr bool kAffine = kScheme == Scheme::Affine;
  constexpr int kSteps = kBits == 4 ? 2 : 1; // of four columns, a word
  const int64_t fields = w.words_per_group(), steps = w.group_size / 4;
  const FloatType type = w.float_type;
  Ahead ahead = ahead_of; // in registers
  __m512 total[2 * kCount];
  unrolled<2 * kCount>(
      [&](auto i) ZMLX_INLINE_LAMBDA { total[i] = _mm512_setzero_ps(); });
  const int64_t groups = w.groups_per_row();
  __m512i floats[2];
  for (int64_t g = 0; g < groups; ++g) {
    if (kAffine || g % 4 == 0) {
      floats[0] = _mm512_loadu_si512(words);
      floats[1] = _mm512_loadu_si512(words + 16);
      ahead.turn();
      ahead.ask();
      words += kBlockRows;
    }
    __m512i sums[6 * kCount]; // (vector, digit, half of the block)
    unrolled<6 * kCount>(
        [&](auto i) ZMLX_INLINE_LAMBDA { sums[i] = _mm512_setzero_si512(); });
    for (int64_t k = 0; k < fields; ++k, words += kBlockRows) {
      ahead.ask();
      const __m512i v[2] = {
          _mm512_loadu_si512(words), _mm512_loadu_si512(words + 16)};
      unrolled<kSteps>([&](auto step) ZMLX_INLINE_LAMBDA {
        __m512i bytes[2] = {v[0], v[1]};
        if constexpr (kBits == 4) {
          unrolled<2>([&](auto h) ZMLX_INLINE_LAMBDA {
            bytes[h] = low_nibbles<!kAffine>(
                step == 0 ? v[h] : _mm512_srli_epi16(v[h], 4));
          });
        }
        unrolled<kCount>([&](auto t) ZMLX_INLINE_LAMBDA {
          const int32_t* digits =
              x.digits[t] + g * 3 * steps + k * kSteps + step;
          unrolled<3>([&](auto d) ZMLX_INLINE_LAMBDA {
            const __m512i digit = _mm512_set1_epi32(digits[d * steps]);
            dot_bytes(sums[6 * t + 2 * d], bytes[0], digit);
            dot_bytes(sums[6 * t + 2 * d + 1], bytes[1], digit);
          });
        });
      });
    }
    unrolled<2>([&](auto h) ZMLX_INLINE_LAMBDA {
      unrolled<kCount>([&](auto t) ZMLX_INLINE_LAMBDA {
        total[2 * t + h] = add_group<kScheme>(
            type,
            floats[h],
            join_digits(
                sums[6 * t + h], sums[6 * t + 2 + h], sums[6 * t + 4 + h]),
            x.scales[t][g],
            x.sums[t][g],
            total[2 * t + h]);
      });
      if constexpr (!kAffine) {
        floats[h] = _mm512_srli_epi32(floats[h], 8);
      }
    });
  }
  ahead_of = ahead;
  unrolled<kCount>([&](auto t) ZMLX_INLINE_LAMBDA {
    _mm512_storeu_ps(y[t], total[2 * t]);
    _mm512_storeu_ps(y[t] + 16, total[2 * t + 1]);
  });
}

/// Rows [begin, end) times kCount vectors.
template <int kCount, int kBits, Scheme kScheme, class Ahead>
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
  alignas(64) float out[kCount][kBlockRows];
  for (int64_t first = begin / kBlockRows * kBlockRows; first < end;
       first += kBlockRows, block += words) {
    multiply_block<kCount, kBits, kScheme>(w, block, vectors, ahead, out);
    const int64_t from = std::max(begin, first);
    const int64_t to = std::min(end, first + kBlockRows);
    for (int t = 0; t < kCount; ++t) {
      std::copy(
          out[t] + (from - first),
          out[t] + (to - first),
          y[t] + (from - begin));
    }
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
    if (w.scheme == Scheme::MXFP4) {
      multiply_blocks<size, 4, Scheme::MXFP4>(w, x, begin, end, y, ahead);
    } else if (w.scheme == Scheme::NVFP4) {
      multiply_blocks<size, 4, Scheme::NVFP4>(w, x, begin, end, y, ahead);
    } else if (w.bits == 4) {
      multiply_blocks<size, 4, Scheme::Affine>(w, x, begin, end, y, ahead);
    } else {
      multiply_blocks<size, 8, Scheme::Affine>(w, x, begin, end, y, ahead);
    }
  });
}

/// Vectors whose integers are sound.
void blocks_matvec(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    const void* next) {
  if (count <= kBlockVectors) {
    LinesAhead ahead(w.block(begin), w.block(end + kBlockRows - 1), next);
    multiply_blocks(w, x, count, begin, end, y, ahead);
    return;
  }
  const int64_t passes = (count + kBlockVectors - 1) / kBlockVectors;
  const int64_t bytes = 4 * w.block_unit_words();
  std::vector<float*> out(static_cast<size_t>(count));
  for (int64_t row = begin; row < end;) {
    const int64_t stop = std::min(end, (row / kBlockRows + 1) * kBlockRows);
    const void* then = stop < end ? w.block(stop) : next ? next : w.block(row);
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
