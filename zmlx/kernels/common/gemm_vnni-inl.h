// SPDX-License-Identifier: MIT
// The integer path of gemm() for AVX-512 with VNNI, and matrices that do not
// lie in blocks. Lanes are rows of the matrix: a panel of 64 rows is unpacked
// to bytes, four columns a lane, and a tile of up to 12 vectors passes over it,
// digit by digit. Three vpdpbusd of 64 products replace four FMA of 16; what a
// group adds is 7 operations in 48.

#if defined(ZMLX_COMMON_GEMM_VNNI_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_GEMM_VNNI_INL_H
#undef ZMLX_COMMON_GEMM_VNNI_INL_H
#else
#define ZMLX_COMMON_GEMM_VNNI_INL_H
#endif

#include <utility>

#include <immintrin.h>

#include "zmlx/kernels/common/float_tile-inl.h"
#include "zmlx/kernels/common/gemm.h"
#include "zmlx/kernels/common/integer_group-inl.h"
#include "zmlx/kernels/common/matvec_generic-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

constexpr int64_t kLanes = 16;
constexpr int kPanelVectors = 4; // of kLanes rows

/// Transposes 16 x 16 values of 32 bits.
HWY_INLINE void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // v[4 q + c] holds column c of each 128-bit block, of rows 4 q .. 4 q + 3.
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);
    t[8 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
  }
  for (int c = 0; c < 4; ++c) {
    v[c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0x88);
    v[8 + c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0xdd);
    v[4 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0x88);
    v[12 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0xdd);
  }
}

/// 64 rows of a matrix with rows in lanes; those past the end are zero.
class Panel {
 public:
  void fill(const PackedMatrix& w, int64_t row, int64_t rows) {
    steps_ = w.cols / 4;
    groups_ = w.groups_per_row();
    floats_of_four_bits_ = w.scheme != Scheme::Affine;
    bytes_.resize(static_cast<size_t>(kPanelVectors * steps_ * 64));
    scales_.resize(static_cast<size_t>(2 * kPanelVectors * groups_ * kLanes));
    for (int v = 0; v < kPanelVectors; ++v) {
      const int64_t left = rows - v * kLanes;
      const int64_t count = std::min(kLanes, std::max<int64_t>(left, 0));
      fill_bytes(w, row + v * kLanes, count, bytes_.data() + v * steps_ * 64);
      fill_floats(w, &ScaleAndBias::scale, row + v * kLanes, count, scales(v));
      fill_floats(w, &ScaleAndBias::bias, row + v * kLanes, count, biases(v));
    }
  }

  /// Bytes of vector v, (column / 4, lane) of four columns each.
  const uint8_t* bytes(int v) const {
    return bytes_.data() + v * steps_ * 64;
  }
  int64_t vector_bytes() const {
    return steps_ * 64;
  }
  /// Scales of vector v, (group, lane), and biases.
  float* scales(int v) {
    return scales_.data() + v * groups_ * kLanes;
  }
  float* biases(int v) {
    return scales(kPanelVectors + v);
  }

 private:
  void
  fill_bytes(const PackedMatrix& w, int64_t row, int64_t rows, uint8_t* out) {
    const bool as_stored = w.bits == 4 || w.bits == 8;
    const uint32_t* words = as_stored ? w.row_words(row) : nullptr;
    int64_t stride = w.words_per_row();
    if (!as_stored) {
      unpack_rows(w, row, rows);
      words = unpacked_.data();
      stride = steps_;
    }
    const int steps_a_word = as_stored && w.bits == 4 ? 2 : 1;
    for (int64_t first = 0; first < stride; first += 16) {
      const int64_t count = std::min<int64_t>(16, stride - first);
      __m512i v[16];
      load_rows(words + first, stride, rows, count, v);
      transpose(v);
      __m512i* to = reinterpret_cast<__m512i*>(out) + first * steps_a_word;
      for (int64_t j = 0; j < count; ++j) {
        if (steps_a_word == 2) {
          const bool floats = floats_of_four_bits_;
          _mm512_store_si512(
              to + 2 * j,
              floats ? low_nibbles<true>(v[j]) : low_nibbles<false>(v[j]));
          _mm512_store_si512(
              to + 2 * j + 1,
              floats ? high_nibbles<true>(v[j]) : high_nibbles<false>(v[j]));
        } else {
          _mm512_store_si512(to + j, v[j]);
        }
      }
    }
  }

  // The bytes of some rows, row by row; nibbles in the order of the digits.
  void unpack_rows(const PackedMatrix& w, int64_t row, int64_t rows) {
    unpacked_.resize(static_cast<size_t>(kLanes * steps_));
    for (int64_t r = 0; r < rows; ++r) {
      auto* bytes = reinterpret_cast<uint8_t*>(unpacked_.data() + r * steps_);
      unpack_row(w, row + r, 0, w.cols, bytes);
      if (floats_of_four_bits_) {
        for (int64_t k = 0; k < w.cols; ++k) {
          bytes[k] = kE2m1Bytes[bytes[k]];
        }
      }
      for (int64_t k = 0; w.bits == 4 && k < w.cols; k += 8) {
        const uint8_t* b = bytes + k;
        const uint8_t ordered[] = {
            b[0], b[2], b[4], b[6], b[1], b[3], b[5], b[7]};
        std::copy_n(ordered, 8, bytes + k);
      }
    }
  }

  void fill_floats(
      const PackedMatrix& w,
      float ScaleAndBias::* value,
      int64_t row,
      int64_t rows,
      float* out) {
    floats_.resize(static_cast<size_t>(kLanes * groups_));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t g = 0; g < groups_; ++g) {
        floats_[r * groups_ + g] = ScaleAndBias(w, row + r, g).*value;
      }
    }
    const auto* words = reinterpret_cast<const uint32_t*>(floats_.data());
    for (int64_t first = 0; first < groups_; first += 16) {
      const int64_t count = std::min<int64_t>(16, groups_ - first);
      __m512i v[16];
      load_rows(words + first, groups_, rows, count, v);
      transpose(v);
      for (int64_t j = 0; j < count; ++j) {
        _mm512_store_si512(out + (first + j) * kLanes, v[j]);
      }
    }
  }

  static void load_rows(
      const uint32_t* words,
      int64_t stride,
      int64_t rows,
      int64_t count,
      __m512i (&v)[16]) {
    const auto mask = static_cast<__mmask16>((1u << count) - 1);
    for (int64_t r = 0; r < 16; ++r) {
      v[r] = r < rows ? _mm512_maskz_loadu_epi32(mask, words + r * stride)
                      : _mm512_setzero_si512();
    }
  }

  int64_t steps_ = 0, groups_ = 0;
  bool floats_of_four_bits_ = false;
  AlignedVector<uint8_t> bytes_;
  AlignedVector<float> scales_, floats_;
  AlignedVector<uint32_t> unpacked_;
};

/// Adds one digit's products of a group: `steps` times four columns.
template <int kVectors, int kTile>
HWY_INLINE void add_digit(
    const uint8_t* weights,
    int64_t stride,
    const int32_t* digits,
    int64_t steps,
    __m512i (&sums)[kVectors * kTile]) {
  for (int64_t k = 0; k < steps; ++k) {
    __m512i w[kVectors];
    unrolled<kVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
      w[v] = _mm512_load_si512(weights + v * stride + 64 * k);
    });
    unrolled<kTile>([&](auto t) ZMLX_INLINE_LAMBDA {
      const __m512i digit = _mm512_set1_epi32(digits[k * kTile + t]);
      unrolled<kVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
        dot_bytes(sums[v * kTile + t], w[v], digit);
      });
    });
  }
}

/// kVectors * 16 rows of the panel from vector `first` times one tile.
template <int kVectors, int kTile>
HWY_NOINLINE void multiply_tile(
    Panel& panel,
    int first,
    int64_t groups,
    int64_t steps,
    const int32_t* digits,
    const float* x_scales,
    float (*out)[kLanes]) {
  constexpr int kSums = kVectors * kTile;
  alignas(64) float low[kSums][kLanes];
  const int64_t stride = panel.vector_bytes();
  const float* x_sums = x_scales + groups * kTile;
  for (int i = 0; i < kSums; ++i) {
    _mm512_store_ps(out[i], _mm512_setzero_ps());
  }
  for (int64_t g = 0; g < groups; ++g) {
    const uint8_t* weights = panel.bytes(first) + g * steps * 64;
    const int32_t* group_digits = digits + g * 3 * steps * kTile;
    __m512i sums[kSums];
    unrolled<kSums>(
        [&](auto i) ZMLX_INLINE_LAMBDA { sums[i] = _mm512_setzero_si512(); });
    add_digit<kVectors, kTile>(weights, stride, group_digits, steps, sums);
    unrolled<kSums>([&](auto i) ZMLX_INLINE_LAMBDA {
      sums[i] = _mm512_slli_epi32(sums[i], 8);
    });
    add_digit<kVectors, kTile>(
        weights, stride, group_digits + steps * kTile, steps, sums);
    unrolled<kSums>([&](auto i) ZMLX_INLINE_LAMBDA {
      _mm512_store_ps(low[i], _mm512_cvtepi32_ps(sums[i]));
      sums[i] = _mm512_setzero_si512();
    });
    add_digit<kVectors, kTile>(
        weights, stride, group_digits + 2 * steps * kTile, steps, sums);
    unrolled<kVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
      const __m512 scale = _mm512_load_ps(panel.scales(first + v) + g * kLanes);
      const __m512 bias = _mm512_load_ps(panel.biases(first + v) + g * kLanes);
      unrolled<kTile>([&](auto t) ZMLX_INLINE_LAMBDA {
        constexpr int i = v * kTile + t;
        const __m512 dot = _mm512_fmadd_ps(
            _mm512_cvtepi32_ps(sums[i]),
            _mm512_set1_ps(65536),
            _mm512_load_ps(low[i]));
        const __m512 scaled = _mm512_fmadd_ps(
            _mm512_mul_ps(dot, _mm512_set1_ps(x_scales[g * kTile + t])),
            scale,
            _mm512_load_ps(out[i]));
        _mm512_store_ps(
            out[i],
            _mm512_fmadd_ps(
                bias, _mm512_set1_ps(x_sums[g * kTile + t]), scaled));
      });
    });
  }
}

template <int kTile>
void multiply_panel(
    Panel& panel,
    int64_t rows,
    const PreparedRows& x,
    int64_t tile,
    float* const* y) {
  // Few vectors leave registers for more rows.
  constexpr int kVectors = kTile <= 6 ? 4 : 2;
  alignas(64) float out[kVectors * kTile][kLanes];
  for (int first = 0; first * kLanes < rows; first += kVectors) {
    multiply_tile<kVectors, kTile>(
        panel,
        first,
        x.groups(),
        x.group_size() / 4,
        x.digits(tile),
        x.floats(tile),
        out);
    for (int v = 0; v < kVectors; ++v) {
      const int64_t row = (first + v) * kLanes;
      const int64_t count = std::min(kLanes, rows - row);
      for (int t = 0; t < kTile && count > 0; ++t) {
        _mm512_mask_storeu_ps(
            y[t] + row,
            static_cast<__mmask16>((1u << count) - 1),
            _mm512_load_ps(out[v * kTile + t]));
      }
    }
  }
}

constexpr int kIntegerTile = kSanitized ? 3 : 12;

/// Asks for the next panel's fields, one part of `parts`, while this one is
/// multiplied: reading them when they are needed took a tenth of the time.
HWY_INLINE void
prefetch_part(const PackedMatrix& w, int64_t row, int64_t part, int64_t parts) {
  const int64_t rows = std::min(kPanelVectors * kLanes, w.rows - row);
  if (rows > 0) {
    const auto* bytes = static_cast<const char*>(w.rows_from(row));
    const int64_t lines = rows * w.words_per_row() / 16;
    for (int64_t i = lines * part / parts; i < lines * (part + 1) / parts;
         ++i) {
      _mm_prefetch(bytes + 64 * i, _MM_HINT_T1);
    }
  }
}

void integer_gemm(
    const PackedMatrix& w,
    int64_t begin,
    int64_t end,
    const PreparedRows& x,
    float* const* y) {
  static thread_local Panel panel;
  constexpr int64_t kRows = kPanelVectors * kLanes;
  std::vector<float*> out(static_cast<size_t>(x.count()));
  for (int64_t row = begin; row < end; row += kRows) {
    const int64_t rows = std::min(kRows, end - row);
    panel.fill(w, row, rows);
    for (int64_t i = 0; i < x.count(); ++i) {
      out[i] = y[i] + (row - begin);
    }
    for (int64_t tile = 0; tile < x.tiles(); ++tile) {
      const int64_t first = x.first_row(tile);
      prefetch_part(w, row + kRows, tile, x.tiles());
      with_constant<kIntegerTile>(
          x.first_row(tile + 1) - first, [&](auto size) {
            multiply_panel<size>(panel, rows, x, tile, out.data() + first);
          });
    }
  }
}

/// For matrices in blocks; false where integers will not do.
bool prepare_for_blocks(PreparedRows& rows, int64_t row) {
  const int64_t columns = rows.group_size();
  int32_t* digits = rows.block_digits(row);
  bool fits = true;
  for (int64_t g = 0; g < rows.groups(); ++g) {
    fits = prepare_block_group(
               rows.row(row) + g * columns, columns, rows.nibbles(), digits) &&
        fits;
    digits += prepared_group_words(columns);
  }
  return fits;
}

/// Row t of a tile; false where integers will not do.
bool prepare_in_tile(PreparedRows& rows, int64_t tile, int64_t t) {
  const int64_t first = rows.first_row(tile);
  const int64_t size = rows.first_row(tile + 1) - first;
  const int64_t columns = rows.group_size(), groups = rows.groups();
  const int64_t steps = columns / 4;
  float* scales = rows.floats(tile) + t;
  bool fits = true;
  for (int64_t g = 0; g < groups; ++g) {
    int32_t* digits = rows.digits(tile) + g * 3 * steps * size + t;
    fits = prepare_group(
               rows.row(first + t) + g * columns,
               columns,
               rows.nibbles(),
               scales + g * size,
               scales + (groups + g) * size,
               [&](int64_t step, __m512i of_steps) {
                 alignas(64) int32_t quads[4][4];
                 _mm512_store_si512(quads, of_steps);
                 for (int64_t q = 0; q < 4; ++q) {
                   for (int64_t d = 0; d < 3; ++d) {
                     digits[(d * steps + step + q) * size] = quads[q][d];
                   }
                 }
               }) &&
        fits;
  }
  return fits;
}

void prepare_integers(PreparedRows& rows, int64_t tile) {
  const int64_t first = rows.first_row(tile);
  for (int64_t i = first; i < rows.first_row(tile + 1); ++i) {
    rows.needs_float(i) =
        !(rows.for_blocks() ? prepare_for_blocks(rows, i)
                            : prepare_in_tile(rows, tile, i - first));
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
