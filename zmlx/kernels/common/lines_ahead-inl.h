// SPDX-License-Identifier: MIT
// What matvec() of matrices in blocks asks memory for ahead of its use.

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

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
