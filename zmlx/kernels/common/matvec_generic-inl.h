// SPDX-License-Identifier: MIT
// Preparation and the float path of matvec(), in plain loops that the compiler
// vectorises for each of Highway's targets. Included once a target.

#if defined(ZMLX_COMMON_MATVEC_GENERIC_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_MATVEC_GENERIC_INL_H
#undef ZMLX_COMMON_MATVEC_GENERIC_INL_H
#else
#define ZMLX_COMMON_MATVEC_GENERIC_INL_H
#endif

#include <algorithm>
#include <cstring>

#include "hwy/highway.h"
#include "zmlx/kernels/common/float_fields-inl.h"
#include "zmlx/kernels/common/packed_matrix.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

inline float load_float(const void* values, FloatType type, int64_t index) {
  if (type == FloatType::F32) {
    return static_cast<const float*>(values)[index];
  }
  uint16_t half;
  std::memcpy(&half, static_cast<const char*>(values) + 2 * index, 2);
  if (type == FloatType::BF16) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  // The exponent and fraction move up; 2^112 corrects the bias, and makes
  // subnormals normal. Infinities and NaN keep their all-ones exponent.
  uint32_t bits = static_cast<uint32_t>(half & 0x7fff) << 13;
  float value;
  std::memcpy(&value, &bits, 4);
  value *= 0x1p112f;
  std::memcpy(&bits, &value, 4);
  bits |= (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u;
  bits |= static_cast<uint32_t>(half & 0x8000) << 16;
  std::memcpy(&value, &bits, 4);
  return value;
}

/// Eight fields of kBits, which fill as many bytes. In registers: GCC puts
/// three, five or six bytes of a memcpy together in memory.
template <int kBits>
inline uint64_t load_eight(const uint8_t* bytes) {
  uint64_t fields = 0;
  int shift = 0;
  const auto add = [&](auto part) {
    std::memcpy(&part, bytes + shift / 8, sizeof part);
    fields |= uint64_t{part} << shift;
    shift += 8 * static_cast<int>(sizeof part);
  };
  if constexpr ((kBits & 4) != 0) {
    add(uint32_t{});
  }
  if constexpr ((kBits & 2) != 0) {
    add(uint16_t{});
  }
  if constexpr ((kBits & 1) != 0) {
    add(uint8_t{});
  }
  return fields;
}

/// Groups are multiples of 32 fields.
template <int kBits>
inline void unpack_eights(const uint8_t* bytes, int64_t count, uint8_t* out) {
  constexpr uint64_t kEach = (1u << kBits) - 1;
  for (int64_t i = 0; i < count; i += 8, bytes += kBits) {
    uint64_t fields = load_eight<kBits>(bytes);
#if HWY_ARCH_X86_64 && HWY_TARGET <= HWY_AVX2
    fields = _pdep_u64(fields, kEach * 0x0101010101010101u);
    std::memcpy(out + i, &fields, 8);
#else
    for (int j = 0; j < 8; ++j) {
      out[i + j] = static_cast<uint8_t>(fields >> (j * kBits) & kEach);
    }
#endif
  }
}

/// Bit fields of `bits` bits, least significant first, to bytes.
inline void
unpack(const uint32_t* words, int bits, int64_t count, uint8_t* out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(words);
  switch (bits) {
    case 2:
      return unpack_eights<2>(bytes, count, out);
    case 3:
      return unpack_eights<3>(bytes, count, out);
    case 4:
      return unpack_eights<4>(bytes, count, out);
    case 5:
      return unpack_eights<5>(bytes, count, out);
    case 6:
      return unpack_eights<6>(bytes, count, out);
    default:
      std::memcpy(out, bytes, static_cast<size_t>(count));
  }
}

/// Fields [first, first + count) of a row to bytes: whole groups, or in rows
/// whole words.
inline void unpack_row(
    const PackedMatrix& w,
    int64_t row,
    int64_t first,
    int64_t count,
    uint8_t* out) {
  if (!w.in_blocks) {
    unpack(w.row_words(row) + first * w.bits / 32, w.bits, count, out);
    return;
  }
  const int64_t words = w.words_per_group();
  for (int64_t k = 0; k < count; k += w.group_size) {
    const uint32_t* from = w.group_words(row, (first + k) / w.group_size);
    uint32_t group[32]; // of the most columns and bits
    for (int64_t i = 0; i < words; ++i) {
      group[i] = from[i * kBlockRows];
    }
    unpack(group, w.bits, w.group_size, out + k);
  }
}

/// The scale and the bias of a group of a row. Fields of four bits that are
/// floats count as the bytes that kE2m1Bytes makes of them.
struct ScaleAndBias {
  float scale, bias;

  ScaleAndBias(const PackedMatrix& w, int64_t row, int64_t group) {
    if (w.scheme != Scheme::Affine) {
      scale = 0.5f *
          (w.scheme == Scheme::NVFP4 ? kE4m3 : kE8m0)[w.byte_scale(row, group)];
      bias = -kE2m1Offset * scale;
    } else if (w.in_blocks) {
      const uint32_t* both = w.unit(row, group);
      scale = load_float(both, w.float_type, 0);
      bias = load_float(both, w.float_type, 1);
    } else {
      scale = load_float(w.row_scales(row), w.float_type, group);
      bias = load_float(w.row_biases(row), w.float_type, group);
    }
  }
};

/// The dot product of one row with x in floats, in 16 partial sums.
inline float
float_row(const PackedMatrix& w, int64_t row, const float* x, uint8_t* quants) {
  unpack_row(w, row, 0, w.cols, quants);
  float total[16] = {};
  for (int64_t g = 0; g < w.groups_per_row(); ++g) {
    const auto [scale, bias] = ScaleAndBias(w, row, g);
    const int64_t first = g * w.group_size;
    for (int64_t k = first; k < first + w.group_size; k += 16) {
      for (int j = 0; j < 16; ++j) {
        total[j] += x[k + j] * (scale * quants[k + j] + bias);
      }
    }
  }
  float sum = 0;
  for (float part : total) {
    sum += part;
  }
  return sum;
}

/// 32 columns: their digits, most significant first, scale and sum.
struct Block {
  int8_t digits[3][32];
  float scale, sum;
};

/// Returns false where integers will not do.
inline bool prepare_block(const float* x, Block& block) {
  uint32_t largest = 0;
  for (int j = 0; j < 32; ++j) {
    uint32_t bits;
    std::memcpy(&bits, x + j, 4);
    largest = std::max(largest, bits & 0x7fffffffu);
  }
  float most;
  std::memcpy(&most, &largest, 4);
  const bool fits = largest == 0 || (largest < 0x7f800000u && most >= 1e-30f);
  // Three digits reach 127 in each; 127 less leaves room for the rounding of
  // the product below, which must not carry into a digit of 128.
  constexpr float kMost = 127 * 65536 + 127 * 256;
  const float inverse = fits && largest ? kMost / most : 0;
  block.scale = fits ? most / kMost : 0;
  int32_t sum = 0;
  for (int j = 0; j < 32; ++j) {
    const float scaled = fits ? x[j] * inverse : 0;
    const int32_t value =
        static_cast<int32_t>(scaled + (scaled < 0 ? -0.5f : 0.5f));
    sum += value;
    const auto low = static_cast<int8_t>(value);
    const int32_t rest = (value - low) >> 8;
    const auto middle = static_cast<int8_t>(rest);
    block.digits[0][j] = static_cast<int8_t>((rest - middle) >> 8);
    block.digits[1][j] = middle;
    block.digits[2][j] = low;
  }
  block.sum = block.scale * static_cast<float>(sum);
  return fits;
}

/// One chunk (128 columns of nibbles or 64 of bytes); missing columns are zero.
struct ChunkOut {
  int8_t* digits;
  float* lane_scales;
  float* block_sums; // of the chunk's blocks of 32
};

inline bool prepare_chunk(
    const float* x,
    int64_t columns,
    bool nibbles,
    const ChunkOut& out) {
  const int blocks = nibbles ? 4 : 2;
  bool fits = true;
  for (int b = 0; b < blocks; ++b) {
    float padded[32] = {};
    const float* values = x + 32 * b;
    if (32 * (b + 1) > columns) {
      const int64_t left = std::max<int64_t>(0, columns - 32 * b);
      std::copy_n(x + 32 * b, left, padded);
      values = padded;
    }
    Block block;
    fits = prepare_block(values, block) && fits;
    out.block_sums[b] = block.sum;
    std::fill_n(out.lane_scales + b * (16 / blocks), 16 / blocks, block.scale);
    for (int d = 0; d < 3; ++d) {
      if (nibbles) {
        int8_t* even = out.digits + 128 * d + 16 * b;
        for (int j = 0; j < 16; ++j) {
          even[j] = block.digits[d][2 * j];
          even[j + 64] = block.digits[d][2 * j + 1];
        }
      } else {
        std::copy_n(block.digits[d], 32, out.digits + 64 * d + 32 * b);
      }
    }
  }
  return fits;
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
