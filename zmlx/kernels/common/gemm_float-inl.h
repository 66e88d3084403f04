// SPDX-License-Identifier: MIT
// The float path of gemm(), for every instruction set. Lanes are rows of the
// matrix; a panel of two vectors of them by 256 columns (32 kB of AVX-512)
// stays in L1 while every tile passes over it.

#if defined(ZMLX_COMMON_GEMM_FLOAT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_GEMM_FLOAT_INL_H
#undef ZMLX_COMMON_GEMM_FLOAT_INL_H
#else
#define ZMLX_COMMON_GEMM_FLOAT_INL_H
#endif

#include "zmlx/kernels/common/float_fields-inl.h"
#include "zmlx/kernels/common/float_tile-inl.h"
#include "zmlx/kernels/common/gemm.h"
#include "zmlx/kernels/common/matvec_generic-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

// Sums start anew every so many columns, which keeps their rounding low.
constexpr int64_t kFloatColumns = 256;

/// Columns [first, first + count) of a row, as floats.
inline void read_row(
    const PackedMatrix& w,
    int64_t row,
    int64_t first,
    int64_t count,
    float* out) {
  if (w.scheme != Scheme::Affine) {
    return read_float_fields(w, row, first, count, out);
  }
  alignas(64) uint8_t quants[kFloatColumns];
  unpack(w.row_words(row) + first * w.bits / 32, w.bits, count, quants);
  for (int64_t g = 0; g < count; g += w.group_size) {
    const int64_t group = (first + g) / w.group_size;
    const float scale = load_float(w.row_scales(row), w.float_type, group);
    const float bias = load_float(w.row_biases(row), w.float_type, group);
    for (int64_t k = g; k < std::min(count, g + w.group_size); ++k) {
      out[k] =
          scale * static_cast<float>(static_cast<int32_t>(quants[k])) + bias;
    }
  }
}

inline void read_row(
    const DenseMatrix& w,
    int64_t row,
    int64_t first,
    int64_t count,
    float* out) {
  for (int64_t k = 0; k < count; ++k) {
    out[k] = load_float(w.row(row), w.type, first + k);
  }
}

/// y[t][r] (+)= the panel's row r times tile row t, t < size.
template <int kTile>
HWY_NOINLINE void multiply_floats(
    const float* panel,
    int64_t columns,
    const float* x,
    int64_t size,
    bool add,
    int64_t rows,
    float* const* y) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVector sums[kFloatVectors * kTile];
  clear(sums);
  add_products<kTile, kTile, 1>(panel, kFloatVectors * lanes, x, columns, sums);
  HWY_ALIGN float out[kFloatVectors * HWY_MAX_BYTES / sizeof(float)];
  unrolled<kTile>([&](auto t) ZMLX_INLINE_LAMBDA {
    unrolled<kFloatVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
      hn::Store(sums[v * kTile + t], d, out + v * lanes);
    });
    for (int64_t r = 0; t < size && r < rows; ++r) {
      y[t][r] = add ? y[t][r] + out[r] : out[r];
    }
  });
}

/// Vectors that the code for a tile of `size` takes; zeros fill it up.
inline int64_t float_places(int64_t size) {
  return size > kFloatTile / 2 ? kFloatTile : kFloatTile / 2;
}

template <class Matrix>
void float_gemm(
    const Matrix& w,
    int64_t begin,
    int64_t end,
    const PreparedRows& x,
    float* const* y) {
  const auto panel_rows =
      static_cast<int64_t>(hn::Lanes(Floats())) * int64_t{kFloatVectors};
  static thread_local AlignedVector<float> panel;
  panel.resize(static_cast<size_t>(panel_rows * kFloatColumns));
  std::vector<float*> out(static_cast<size_t>(x.count()));
  for (int64_t row = begin; row < end; row += panel_rows) {
    const int64_t rows = std::min(panel_rows, end - row);
    for (int64_t i = 0; i < x.count(); ++i) {
      out[i] = y[i] + (row - begin);
    }
    for (int64_t first = 0; first < w.cols; first += kFloatColumns) {
      const int64_t columns = std::min(kFloatColumns, w.cols - first);
      float values[kFloatColumns];
      for (int64_t r = 0; r < panel_rows; ++r) {
        if (r < rows) {
          read_row(w, row + r, first, columns, values);
        } else {
          std::fill_n(values, columns, 0.0f);
        }
        for (int64_t k = 0; k < columns; ++k) {
          panel[k * panel_rows + r] = values[k];
        }
      }
      for (int64_t tile = 0; tile < x.tiles(); ++tile) {
        const int64_t i = x.first_row(tile);
        const int64_t size = x.first_row(tile + 1) - i;
        const int64_t places = float_places(size);
        (places == kFloatTile
             ? multiply_floats<kFloatTile>
             : multiply_floats<kFloatTile / 2>)(panel.data(),
                                                columns,
                                                x.floats(tile) + first * places,
                                                size,
                                                first != 0,
                                                rows,
                                                out.data() + i);
      }
    }
  }
}

inline void prepare_floats(PreparedRows& rows, int64_t tile) {
  const int64_t first = rows.first_row(tile);
  const int64_t size = rows.first_row(tile + 1) - first;
  const int64_t places = float_places(size);
  float* out = rows.floats(tile);
  for (int64_t t = 0; t < places; ++t) {
    const float* x = t < size ? rows.row(first + t) : nullptr;
    for (int64_t k = 0; k < rows.cols(); ++k) {
      out[k * places + t] = x ? x[k] : 0;
    }
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
