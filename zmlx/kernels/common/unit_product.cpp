// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/unit_product.h"

namespace zmlx::quant {

// Lane l takes units l, l + 32, ... of a row. A unit's values lie 36 floats
// apart in threadgroup memory, so that lanes that read 16 bytes each meet
// different banks.
const char* const kUnitProduct = R"(
struct Unit {
  float4 values[8];
  float sum;
};

inline Unit unit_at(const threadgroup float* held, int u) {
  Unit x;
  x.sum = 0;
  for (int i = 0; i < 8; ++i) {
    x.values[i] = *(const threadgroup float4*)(held + 36 * u + 4 * i);
    x.sum += (x.values[i].x + x.values[i].y) + (x.values[i].z + x.values[i].w);
  }
  return x;
}

// A field of n bits becomes the float 1 + field / 2^n by its place among the
// bits, with no conversion; what the ones add is taken off the sum.
template <int BITS>
inline float field_at(const thread uint32_t* words, int i) {
  int bit = i * BITS, shift = bit % 32;
  uint32_t field = words[bit / 32] >> shift;
  if (shift + BITS > 32) {
    field |= words[bit / 32 + 1] << (32 - shift);
  }
  field = (field << (23 - BITS)) & (((1u << BITS) - 1) << (23 - BITS));
  return as_type<float>(field | 0x3f800000u);
}

// A unit of a row times the vector's.
template <int BITS, int GROUP, typename S>
inline float product(
    const device uint32_t* words,
    const device S* scales,
    const device S* biases,
    size_t unit,
    Unit x) {
  uint32_t own[8]; // of at most 8 bits, BITS in use
  if (BITS % 4 == 0) {
    for (int i = 0; i < BITS / 4; ++i) {
      uint4 four = *(const device uint4*)(words + unit * BITS + 4 * i);
      own[4 * i] = four.x;
      own[4 * i + 1] = four.y;
      own[4 * i + 2] = four.z;
      own[4 * i + 3] = four.w;
    }
  } else {
    for (int i = 0; i < BITS; ++i) {
      own[i] = words[unit * BITS + i];
    }
  }
  float total = 0, other = 0;
  for (int i = 0; i < 8; ++i) {
    total = fma(field_at<BITS>(own, 4 * i), x.values[i].x, total);
    other = fma(field_at<BITS>(own, 4 * i + 1), x.values[i].y, other);
    total = fma(field_at<BITS>(own, 4 * i + 2), x.values[i].z, total);
    other = fma(field_at<BITS>(own, 4 * i + 3), x.values[i].w, other);
  }
  float whole = float(1 << BITS);
  size_t group = unit * 32 / GROUP;
  float dot = (total + other) - x.sum;
  return fma(whole * float(scales[group]), dot, float(biases[group]) * x.sum);
}
)";

bool fits_unit_product(const QuantizedArrays& w) {
  return w.scheme == cpu::Scheme::Affine && !w.blocks && w.bits <= 8 &&
      w.group_size % kUnit == 0;
}

} // namespace zmlx::quant
