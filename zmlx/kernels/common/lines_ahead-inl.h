// SPDX-License-Identifier: MIT
// What matvec() asks memory for ahead of its use: of words, in blocks or rows.

#if defined(ZMLX_COMMON_LINES_AHEAD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_LINES_AHEAD_INL_H
#undef ZMLX_COMMON_LINES_AHEAD_INL_H
#else
#define ZMLX_COMMON_LINES_AHEAD_INL_H
#endif

#include <immintrin.h>

#include "hwy/highway.h"
#include "zmlx/kernels/common/matvec.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

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
/// side by side, each in the order of memory (or, as of one, those of rows),
/// and past their ends those that come next (or, again, the first).
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

  /// Asks for kLines lines of each block, where `words` are now read.
  template <int kLines = 2>
  HWY_INLINE void ask(const void* words) const {
    const auto* at = static_cast<const char*>(words);
    if (twice_) {
      lines<kLines, _MM_HINT_T1>(at + ahead_);
      lines<kLines, _MM_HINT_T0>(at + kNear);
    } else {
      lines<kLines, _MM_HINT_T0>(at + ahead_);
    }
  }
  /// Called before each unit, or some rows.
  HWY_INLINE void turn(const void* words) {
    if (static_cast<const char*>(words) >= end_) {
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

  template <int kLines, auto kHint> // an enumerator of GCC's, an int of Clang's
  HWY_INLINE void lines(const char* at) const {
    for (int b = 0; b < kBlocks; ++b, at += second_) {
      for (int i = 0; i < kLines; ++i) {
        _mm_prefetch(at + 64 * i, kHint);
      }
    }
  }

  bool twice_;
  int64_t ahead_, second_; // bytes from what is read, and to the other block
  const char* end_;
  int64_t jump_, second_then_;
};

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
