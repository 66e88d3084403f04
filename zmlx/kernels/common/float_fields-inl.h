// SPDX-License-Identifier: MIT
// Matrices whose fields are small floats (MXFP4, NVFP4, MXFP8), for any
// instruction set. Included once a target.

#if defined(ZMLX_COMMON_FLOAT_FIELDS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_FLOAT_FIELDS_INL_H
#undef ZMLX_COMMON_FLOAT_FIELDS_INL_H
#else
#define ZMLX_COMMON_FLOAT_FIELDS_INL_H
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "hwy/highway.h"
#include "zmlx/kernels/common/aligned.h"
#include "zmlx/kernels/common/packed_matrix.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

/// Twice the value of each e2m1 field.
constexpr int kTwiceE2m1[16] =
    {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// The same as bytes for integer products: kE2m1Offset more, so none is below
/// zero.
constexpr int kE2m1Offset = 12;
constexpr std::array<uint8_t, 16> kE2m1Bytes = [] {
  std::array<uint8_t, 16> bytes{};
  for (size_t i = 0; i < 16; ++i) {
    bytes[i] = static_cast<uint8_t>(kTwiceE2m1[i] + kE2m1Offset);
  }
  return bytes;
}();

/// Sign, four bits of exponent and three of fraction; all ones are NaN.
constexpr float e4m3(uint8_t bits) {
  if ((bits & 0x7f) == 0x7f) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  float value = exponent == 0 ? static_cast<float>(fraction) / 8
                              : 1 + static_cast<float>(fraction) / 8;
  for (int e = std::max(exponent, 1); e < 7; ++e) {
    value /= 2;
  }
  for (int e = 7; e < exponent; ++e) {
    value *= 2;
  }
  return (bits & 0x80) != 0 ? -value : value;
}

/// The same without tables or branches, for loops that fill vectors.
HWY_INLINE float e4m3_in_lanes(uint8_t field) {
  const int32_t code = field & 0x7f, exponent = code >> 3;
  const int32_t eighths = (code & 7) | (exponent > 0 ? 8 : 0);
  const int32_t power = std::max(exponent, 1) + (127 - 7 - 3);
  const float value =
      static_cast<float>(eighths) * std::bit_cast<float>(power << 23);
  const int32_t bits = std::bit_cast<int32_t>(value) | (field & 0x80) << 24;
  return std::bit_cast<float>(code == 0x7f ? 0x7fc00000 : bits);
}

/// 2^(bits - 127); the last code, NaN by the standard, is infinity in MLX.
constexpr float e8m0(uint8_t bits) {
  return std::bit_cast<float>(bits == 0 ? 0x00400000u : uint32_t{bits} << 23);
}

template <class Value>
constexpr std::array<float, 256> table_of(Value value) {
  std::array<float, 256> table{};
  for (int i = 0; i < 256; ++i) {
    table[static_cast<size_t>(i)] = value(static_cast<uint8_t>(i));
  }
  return table;
}
constexpr auto kE4m3 = table_of(e4m3);
constexpr auto kE8m0 = table_of(e8m0);

/// Columns [first, first + count) of a row, whole groups, as floats.
inline void read_float_fields(
    const PackedMatrix& w,
    int64_t row,
    int64_t first,
    int64_t count,
    float* out) {
  const auto& scale_of = w.scheme == Scheme::NVFP4 ? kE4m3 : kE8m0;
  const int64_t stride = w.word_stride(), words = w.words_per_group();
  for (int64_t k = 0; k < count; k += w.group_size, out += w.group_size) {
    const int64_t group = (first + k) / w.group_size;
    const uint32_t* from = w.group_words(row, group);
    uint8_t fields[32]; // of the most columns and bits
    for (int64_t i = 0; i < words; ++i) {
      std::memcpy(fields + 4 * i, from + i * stride, 4);
    }
    const float scale = scale_of[w.byte_scale(row, group)];
    if (w.bits == 8) {
      for (int64_t i = 0; i < 32; ++i) {
        out[i] = scale * e4m3_in_lanes(fields[i]);
      }
    } else {
      const float half = 0.5f * scale;
      for (int64_t i = 0; i < 4 * words; ++i) {
        out[2 * i] = half * static_cast<float>(kTwiceE2m1[fields[i] & 15]);
        out[2 * i + 1] = half * static_cast<float>(kTwiceE2m1[fields[i] >> 4]);
      }
    }
  }
}

/// y[row - begin] = W[row] . x in floats, in 16 partial sums.
inline void plain_float_fields(
    const PackedMatrix& w,
    const float* x,
    int64_t begin,
    int64_t end,
    float* y) {
  AlignedVector<float> values(static_cast<size_t>(w.cols));
  for (int64_t row = begin; row < end; ++row) {
    read_float_fields(w, row, 0, w.cols, values.data());
    float total[16] = {};
    for (int64_t k = 0; k < w.cols; k += 16) {
      for (int64_t j = 0; j < 16; ++j) {
        total[j] += x[k + j] * values[k + j];
      }
    }
    float sum = 0;
    for (float part : total) {
      sum += part;
    }
    y[row - begin] = sum;
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
