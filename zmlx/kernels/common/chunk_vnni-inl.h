// SPDX-License-Identifier: MIT
// A chunk of a row for AVX-512 with VNNI: its fields as bytes, their integer
// dot product and their scales. A chunk of 128 nibbles costs 15 vector
// instructions: 40 GB/s a core in L2 on Zen 5, above what one core reads from
// memory. A float path (table look-up and FMA) costs 30 and reached 12. Fields
// of other widths become bytes by three operations a vector: one brings those
// of eight or sixteen columns to each lane of 64 bits, one cuts eight fields
// out of each, one takes off what is above.

#if defined(ZMLX_COMMON_CHUNK_VNNI_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ZMLX_COMMON_CHUNK_VNNI_INL_H
#undef ZMLX_COMMON_CHUNK_VNNI_INL_H
#else
#define ZMLX_COMMON_CHUNK_VNNI_INL_H
#endif

#include <cstring>

#include <immintrin.h>

#include "hwy/highway.h"
#include "zmlx/kernels/common/matvec.h"

// Highway 1.0.3 checks for VNNI before it chooses AVX3_DL, but does not ask the
// compiler for it.
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni")
namespace zmlx::cpu::HWY_NAMESPACE {

/// Columns of a chunk, and its bytes in memory.
template <int kBits>
constexpr int kChunkColumns = has_nibble_digits(kBits) ? 128 : 64;
template <int kBits>
constexpr int kChunkBytes = kChunkColumns<kBits> * kBits / 8;

/// What load_chunk() makes of other fields than nibbles and bytes.
template <int kBits>
HWY_INLINE __m512i to_64_bit_lanes(__m512i bytes) {
  constexpr int kLaneBytes = kChunkBytes<kBits> / 8;
  const __m512i first = _mm512_mullo_epi64(
      _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7),
      _mm512_set1_epi64(kLaneBytes * 0x0101010101010101));
  return _mm512_permutexvar_epi8(
      _mm512_add_epi8(first, _mm512_set1_epi64(0x0706050403020100)), bytes);
}

/// The fields of 64-bit lanes that start kStep fields apart, as bytes.
template <int kBits, int kFirst, int kStep>
HWY_INLINE __m512i cut_fields(__m512i lanes) {
  const __m512i shifts = _mm512_set1_epi64(
      kBits * (kStep * 0x0706050403020100 + kFirst * 0x0101010101010101));
  return _mm512_and_si512(
      _mm512_multishift_epi64_epi8(shifts, lanes),
      _mm512_set1_epi8((1 << kBits) - 1));
}

/// A chunk, of which `bytes` bytes of memory exist: as stored, if its fields
/// are nibbles or bytes.
template <int kBits>
HWY_INLINE __m512i load_chunk(const char* from, int64_t bytes) {
  __m512i words;
  if (kChunkBytes<kBits> == 32 && bytes == 32) {
    // What is above is not looked at. A mask costs an operation.
    words = _mm512_castsi256_si512(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  } else if (bytes == 64) {
    words = _mm512_loadu_si512(from);
  } else {
    words = _mm512_maskz_loadu_epi8(
        static_cast<__mmask64>(~uint64_t{0} >> (64 - bytes)), from);
  }
  if constexpr (kBits == 4 || kBits == 8) {
    return words;
  } else {
    return to_64_bit_lanes<kBits>(words);
  }
}

/// The integer dot product of bytes of even and of odd columns, at most 24. A
/// lane's sum is at most 8 * 24 * 128 before the shifts: no overflow.
HWY_INLINE __m512i dot_pairs(__m512i even, __m512i odd, const __m512i* digits) {
  __m512i sum = _mm512_setzero_si512();
  for (int d = 0; d < 3; ++d) {
    sum = _mm512_slli_epi32(sum, 8); // of nothing at first
    sum = _mm512_dpbusd_epi32(sum, even, digits[2 * d]);
    sum = _mm512_dpbusd_epi32(sum, odd, digits[2 * d + 1]);
  }
  return sum;
}

HWY_INLINE __m512 byte_chunk(__m512i bytes, const __m512i* digits) {
  const __m512i zero = _mm512_setzero_si512();
  // 4 * 255 * 128 * 65536 would not fit: the high digit goes its own way.
  const __m512i high = _mm512_dpbusd_epi32(zero, bytes, digits[0]);
  __m512i low = _mm512_dpbusd_epi32(zero, bytes, digits[1]);
  low = _mm512_dpbusd_epi32(_mm512_slli_epi32(low, 8), bytes, digits[2]);
  return _mm512_fmadd_ps(
      _mm512_cvtepi32_ps(high), _mm512_set1_ps(65536), _mm512_cvtepi32_ps(low));
}

/// The integer dot product of what load_chunk() gave, as floats a lane.
template <int kBits>
HWY_INLINE __m512 chunk_dot(__m512i words, const __m512i* digits) {
  if constexpr (kBits == 8) {
    return byte_chunk(words, digits);
  } else if constexpr (!has_nibble_digits(kBits)) {
    // At most 4 * 63 * 128 * 65793: no overflow.
    const __m512i bytes = cut_fields<kBits, 0, 1>(words);
    __m512i sum = _mm512_setzero_si512();
    for (int d = 0; d < 3; ++d) {
      sum = _mm512_slli_epi32(sum, 8);
      sum = _mm512_dpbusd_epi32(sum, bytes, digits[d]);
    }
    return _mm512_cvtepi32_ps(sum);
  } else if constexpr (kBits == 4) {
    const __m512i mask = _mm512_set1_epi8(15);
    return _mm512_cvtepi32_ps(dot_pairs(
        _mm512_and_si512(words, mask),
        _mm512_and_si512(_mm512_srli_epi16(words, 4), mask),
        digits));
  } else {
    return _mm512_cvtepi32_ps(dot_pairs(
        cut_fields<kBits, 0, 2>(words),
        cut_fields<kBits, 1, 2>(words),
        digits));
  }
}

/// Scales of a chunk, one for each of 16 lanes. kGroups: groups a chunk, 4, 2,
/// 1, or 0 where one group spans two chunks.
template <FloatType kType, int kGroups>
struct LaneScales {
  LaneScales() {
    alignas(64) uint8_t bytes[64];
    alignas(64) int32_t lanes[16];
    for (int lane = 0; lane < 16; ++lane) {
      const int group = lane * kGroups / 16;
      lanes[lane] = group;
      if (kType == FloatType::BF16) {
        const uint8_t four[4] = {
            0x80,
            0x80,
            static_cast<uint8_t>(2 * group),
            static_cast<uint8_t>(2 * group + 1)};
        std::memcpy(bytes + 4 * lane, four, 4);
      } else {
        bytes[2 * lane] = static_cast<uint8_t>(2 * group);
        bytes[2 * lane + 1] = static_cast<uint8_t>(2 * group + 1);
      }
    }
    bytes_ = _mm512_load_si512(bytes);
    lanes_ = _mm512_load_si512(lanes);
  }

  /// The groups from `first` on, read in one load.
  HWY_INLINE __m512 load(const char* first) const {
    return load_some<kGroups>(first);
  }

  /// The last chunk of a row, where only `groups` of them exist.
  __m512 load_last(const char* first, int64_t groups) const {
    alignas(64) char padded[16] = {};
    std::memcpy(padded, first, static_cast<size_t>(groups) * size_of(kType));
    return load_some<4>(padded);
  }

  /// Where the groups of a chunk start, in bytes.
  static HWY_INLINE int64_t offset(int64_t chunk) {
    return (kGroups == 0 ? chunk >> 1 : chunk * kGroups) *
        static_cast<int64_t>(size_of(kType));
  }

 private:
  template <int kCount>
  HWY_INLINE __m512 load_some(const char* first) const {
    if (kType == FloatType::F32) {
      const auto mask =
          static_cast<__mmask8>(kCount <= 1 ? 1 : (1u << kCount) - 1);
      return _mm512_permutexvar_ps(
          lanes_, _mm512_broadcast_f32x4(_mm_maskz_loadu_ps(mask, first)));
    }
    __m512i packed;
    if (kCount <= 1) {
      packed = _mm512_set1_epi16(load_as<int16_t>(first));
    } else if (kCount == 2) {
      packed = _mm512_set1_epi32(load_as<int32_t>(first));
    } else {
      packed = _mm512_set1_epi64(load_as<int64_t>(first));
    }
    if (kType == FloatType::BF16) {
      return _mm512_castsi512_ps(_mm512_shuffle_epi8(packed, bytes_));
    }
    return _mm512_cvtph_ps(_mm256_shuffle_epi8(
        _mm512_castsi512_si256(packed), _mm512_castsi512_si256(bytes_)));
  }

  template <class T>
  static HWY_INLINE T load_as(const char* bytes) {
    T value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }

  __m512i bytes_, lanes_;
};

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // include guard
