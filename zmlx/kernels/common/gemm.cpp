// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/gemm.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/kernels/common/gemm.cpp"
#define HWY_WANT_AVX3_DL 1
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/kernels/common/gemm_float-inl.h"
#include "zmlx/kernels/common/matvec.h"
#if HWY_TARGET == HWY_AVX3_DL
#include "zmlx/kernels/common/gemm_vnni-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

/// Rows of a tile, for integers if the target has them.
int64_t MaxTile(bool has_integers, bool* integers) {
#if HWY_TARGET == HWY_AVX3_DL
  *integers = has_integers;
  return has_integers ? kIntegerTile : kFloatTile;
#else
  (void)has_integers;
  *integers = false;
  return kFloatTile;
#endif
}

void PrepareTile(PreparedRows& rows, int64_t tile) {
#if HWY_TARGET == HWY_AVX3_DL
  if (rows.integers()) {
    return prepare_integers(rows, tile);
  }
#endif
  prepare_floats(rows, tile);
}

void GemmPacked(
    const PackedMatrix& w,
    int64_t begin,
    int64_t end,
    const PreparedRows& x,
    float* const* y) {
#if HWY_TARGET == HWY_AVX3_DL
  if (x.integers()) {
    if (x.for_blocks()) {
      std::vector<const int32_t*> digits;
      for (int64_t i = 0; i < x.count(); ++i) {
        digits.push_back(x.block_digits(i));
      }
      multiply_blocks(w, digits.data(), x.count(), begin, end, y);
    } else {
      integer_gemm(w, begin, end, x, y);
    }
    AlignedVector<uint8_t> quants;
    for (int64_t i = 0; i < x.count(); ++i) {
      if (x.needs_float(i) && w.scheme != Scheme::Affine) {
        plain_float_fields(w, x.row(i), begin, end, y[i]);
      } else if (x.needs_float(i)) {
        quants.resize(static_cast<size_t>(w.cols));
        for (int64_t row = begin; row < end; ++row) {
          y[i][row - begin] = float_row(w, row, x.row(i), quants.data());
        }
      }
    }
    return;
  }
#endif
  float_gemm(w, begin, end, x, y);
}

void GemmDense(
    const DenseMatrix& w,
    int64_t begin,
    int64_t end,
    const PreparedRows& x,
    float* const* y) {
  float_gemm(w, begin, end, x, y);
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(MaxTile);
HWY_EXPORT(PrepareTile);
HWY_EXPORT(GemmPacked);
HWY_EXPORT(GemmDense);

void PreparedRows::reserve(
    const PackedMatrix& w,
    const float* const* x,
    int64_t count) {
  bool integers = false;
  const int64_t most =
      HWY_DYNAMIC_DISPATCH(MaxTile)(w.scheme != Scheme::MXFP8, &integers);
  group_size_ = integers ? w.group_size : 0;
  nibbles_ = w.bits == 4;
  for_blocks_ = integers && w.in_blocks;
  reserve(x, count, w.cols, most);
}

void PreparedRows::reserve(
    const DenseMatrix& w,
    const float* const* x,
    int64_t count) {
  bool integers = false;
  const int64_t most = HWY_DYNAMIC_DISPATCH(MaxTile)(false, &integers);
  group_size_ = 0;
  for_blocks_ = false;
  reserve(x, count, w.cols, most);
}

void PreparedRows::reserve(
    const float* const* x,
    int64_t count,
    int64_t cols,
    int64_t most_rows) {
  x_.assign(x, x + count);
  most_rows_ = most_rows;
  cols_ = cols;
  tiles_ = (count + most_rows - 1) / most_rows;
  needs_float_.resize(static_cast<size_t>(count));
  if (for_blocks_) {
    digits_.resize(
        static_cast<size_t>(
            count * groups() * prepared_group_words(group_size_)));
  } else if (integers()) {
    digits_.resize(static_cast<size_t>(count * cols * 3 / 4));
    floats_.resize(static_cast<size_t>(count * 2 * groups()));
  } else {
    floats_.resize(static_cast<size_t>(tiles_ * most_rows * cols));
  }
}

void PreparedRows::prepare_tile(int64_t tile) {
  HWY_DYNAMIC_DISPATCH(PrepareTile)(*this, tile);
}

void gemm(
    const PackedMatrix& w,
    int64_t begin,
    int64_t end,
    const PreparedRows& x,
    float* const* y) {
  HWY_DYNAMIC_DISPATCH(GemmPacked)(w, begin, end, x, y);
}

void gemm(
    const DenseMatrix& w,
    int64_t begin,
    int64_t end,
    const PreparedRows& x,
    float* const* y) {
  HWY_DYNAMIC_DISPATCH(GemmDense)(w, begin, end, x, y);
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
