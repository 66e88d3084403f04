// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/gemm.h"

#include <algorithm>

#include "zmlx/kernels/common/aligned.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/kernels/common/gemm.cpp"
#define HWY_WANT_AVX3_DL 1
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/kernels/common/matvec_generic-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 6 vectors by 4 rows are 24 sums, of 32 registers. A block of 1024 columns of
// them (40 kB) stays in L1; a panel of 16 rows (64 kB) in L2.
constexpr int64_t kVectors = 6, kRows = 4, kPanelRows = 16, kBlock = 1024;

/// Columns [first, first + count) of a row, as floats.
HWY_NOINLINE void dequantize(
    const PackedMatrix& w,
    int64_t row,
    int64_t first,
    int64_t count,
    float* out) {
  alignas(64) uint8_t quants[kBlock];
  unpack(w.row_words(row) + first * w.bits / 32, w.bits, count, quants);
  for (int64_t g = 0; g < count; g += w.group_size) {
    const int64_t group = (first + g) / w.group_size;
    const float scale = load_float(w.row_scales(row), w.float_type, group);
    const float bias = load_float(w.row_biases(row), w.float_type, group);
    for (int64_t k = g; k < g + w.group_size; ++k) {
      out[k] =
          scale * static_cast<float>(static_cast<int32_t>(quants[k])) + bias;
    }
  }
}

/// sums[i][r] (+)= x[i] . panel row r over `count` columns.
template <int64_t kCount>
HWY_INLINE void tile(
    const float* const* x,
    int64_t first,
    const float* panel,
    int64_t count,
    float (*sums)[kRows]) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  V total[kCount][kRows];
  for (int64_t i = 0; i < kCount; ++i) {
    for (int64_t r = 0; r < kRows; ++r) {
      total[i][r] = hn::Zero(d);
    }
  }
  // Columns come in groups of at least 32: a multiple of any vector's lanes.
  for (int64_t k = 0; k < count; k += static_cast<int64_t>(hn::Lanes(d))) {
    V w[kRows];
    for (int64_t r = 0; r < kRows; ++r) {
      w[r] = hn::Load(d, panel + r * kBlock + k);
    }
    for (int64_t i = 0; i < kCount; ++i) {
      const V value = hn::LoadU(d, x[i] + first + k);
      for (int64_t r = 0; r < kRows; ++r) {
        total[i][r] = hn::MulAdd(value, w[r], total[i][r]);
      }
    }
  }
  for (int64_t i = 0; i < kCount; ++i) {
    for (int64_t r = 0; r < kRows; ++r) {
      sums[i][r] = hn::GetLane(hn::SumOfLanes(d, total[i][r]));
    }
  }
}

HWY_INLINE void tile_of(
    int64_t vectors,
    const float* const* x,
    int64_t first,
    const float* panel,
    int64_t count,
    float (*sums)[kRows]) {
  switch (vectors) {
    case 6:
      return tile<6>(x, first, panel, count, sums);
    case 5:
      return tile<5>(x, first, panel, count, sums);
    case 4:
      return tile<4>(x, first, panel, count, sums);
    case 3:
      return tile<3>(x, first, panel, count, sums);
    case 2:
      return tile<2>(x, first, panel, count, sums);
    default:
      return tile<1>(x, first, panel, count, sums);
  }
}

void Gemm(
    const PackedMatrix& w,
    int64_t begin,
    int64_t end,
    const float* const* x,
    int64_t count,
    float* const* y) {
  static thread_local AlignedVector<float> panel(kPanelRows * kBlock);
  for (int64_t row = begin; row < end; row += kPanelRows) {
    const int64_t rows = std::min(kPanelRows, end - row);
    for (int64_t first = 0; first < w.cols; first += kBlock) {
      const int64_t columns = std::min(kBlock, w.cols - first);
      for (int64_t r = 0; r < rows; ++r) {
        dequantize(w, row + r, first, columns, panel.data() + r * kBlock);
      }
      for (int64_t i = 0; i < count; i += kVectors) {
        const int64_t vectors = std::min(kVectors, count - i);
        // Rows past the end are sums over an old panel that nothing reads.
        for (int64_t r = 0; r < rows; r += kRows) {
          float sums[kVectors][kRows];
          tile_of(
              vectors, x + i, first, panel.data() + r * kBlock, columns, sums);
          for (int64_t v = 0; v < vectors; ++v) {
            float* out = y[i + v] + (row + r - begin);
            for (int64_t s = 0; s < std::min(kRows, rows - r); ++s) {
              out[s] = first == 0 ? sums[v][s] : out[s] + sums[v][s];
            }
          }
        }
      }
    }
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(Gemm);

void gemm(
    const PackedMatrix& w,
    int64_t begin,
    int64_t end,
    const float* const* x,
    int64_t count,
    float* const* y) {
  HWY_DYNAMIC_DISPATCH(Gemm)(w, begin, end, x, count, y);
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
