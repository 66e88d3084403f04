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
  HWY_INLINE void turn() {
    far_.turn(next_);
    near_.turn(next_);
  }

 private:
  // Of a plain read, 900 MB by two cores: on Zen 5, once into L1 from 4 kB to
  // 12 kB ahead 90%; on Emerald Rapids that 74%, into L2 16 kB ahead 84%, and
  // into L1 besides 92%.
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

/// y[t][row] for the rows of the block at `words`.
template <int kCount, int kBits>
HWY_NOINLINE void multiply_block(
    const PackedMatrix& w,
    const uint32_t* words,
    const BlockVectors<kCount>& x,
    LinesAhead& ahead_of,
    float (*y)[kBlockRows]) {
  const __m512i mask = _mm512_set1_epi8(15);
  const int64_t fields = w.words_per_group(), steps = w.group_size / 4;
  const FloatType type = w.float_type;
  LinesAhead ahead = ahead_of; // in registers
  __m512 total[2 * kCount];
  unrolled<2 * kCount>(
      [&](auto i) ZMLX_INLINE_LAMBDA { total[i] = _mm512_setzero_ps(); });
  const int64_t groups = w.groups_per_row();
  for (int64_t g = 0; g < groups; ++g) {
    const __m512i floats[2] = {
        _mm512_loadu_si512(words), _mm512_loadu_si512(words + 16)};
    ahead.turn();
    ahead.ask();
    words += kBlockRows;
    __m512i sums[6 * kCount]; // (vector, digit, half of the block)
    unrolled<6 * kCount>(
        [&](auto i) ZMLX_INLINE_LAMBDA { sums[i] = _mm512_setzero_si512(); });
    for (int64_t k = 0; k < fields; ++k, words += kBlockRows) {
      ahead.ask();
      const __m512i v[2] = {
          _mm512_loadu_si512(words), _mm512_loadu_si512(words + 16)};
      constexpr int kSteps = kBits == 4 ? 2 : 1;
      unrolled<kSteps>([&](auto step) ZMLX_INLINE_LAMBDA {
        __m512i bytes[2] = {v[0], v[1]};
        if constexpr (kBits == 4) {
          unrolled<2>([&](auto h) ZMLX_INLINE_LAMBDA {
            bytes[h] = _mm512_and_si512(
                step == 0 ? v[h] : _mm512_srli_epi16(v[h], 4), mask);
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
      const Halves of_rows(type, floats[h]);
      unrolled<kCount>([&](auto t) ZMLX_INLINE_LAMBDA {
        // The high digit goes its own way: shifted it would not fit.
        const __m512 low = _mm512_cvtepi32_ps(_mm512_add_epi32(
            _mm512_slli_epi32(sums[6 * t + h], 8), sums[6 * t + 2 + h]));
        const __m512 dot = _mm512_fmadd_ps(
            _mm512_cvtepi32_ps(sums[6 * t + 4 + h]),
            _mm512_set1_ps(65536),
            low);
        const __m512 scaled = _mm512_fmadd_ps(
            _mm512_mul_ps(dot, _mm512_set1_ps(x.scales[t][g])),
            of_rows.scale,
            total[2 * t + h]);
        total[2 * t + h] =
            _mm512_fmadd_ps(of_rows.bias, _mm512_set1_ps(x.sums[t][g]), scaled);
      });
    });
  }
  ahead_of = ahead;
  unrolled<kCount>([&](auto t) ZMLX_INLINE_LAMBDA {
    _mm512_storeu_ps(y[t], total[2 * t]);
    _mm512_storeu_ps(y[t] + 16, total[2 * t + 1]);
  });
}

/// Rows [begin, end) times kCount vectors.
template <int kCount, int kBits>
void multiply_blocks(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t begin,
    int64_t end,
    float* const* y,
    const void* next) {
  const BlockVectors<kCount> vectors(x);
  const int64_t words = w.groups_per_row() * w.block_group_words();
  const uint32_t* block = w.block(begin);
  LinesAhead ahead(block, w.block(end + kBlockRows - 1), next);
  alignas(64) float out[kCount][kBlockRows];
  for (int64_t first = begin / kBlockRows * kBlockRows; first < end;
       first += kBlockRows, block += words) {
    multiply_block<kCount, kBits>(w, block, vectors, ahead, out);
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

template <int kCount>
void multiply_blocks(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t begin,
    int64_t end,
    float* const* y,
    const void* next) {
  if (w.bits == 4) {
    multiply_blocks<kCount, 4>(w, x, begin, end, y, next);
  } else {
    multiply_blocks<kCount, 8>(w, x, begin, end, y, next);
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
    const void* next) {
  // A block's row range stays in L1 and L2 while further vectors pass over it.
  for (int64_t i = 0; i < count; i += kBlockVectors) {
    const int64_t left = count - i;
    const void* then = left > kBlockVectors ? nullptr : next;
    const auto pass = [&](auto size) {
      multiply_blocks<size>(w, x + i, begin, end, y + i, then);
    };
    with_constant<kBlockVectors>(std::min<int64_t>(left, kBlockVectors), pass);
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
