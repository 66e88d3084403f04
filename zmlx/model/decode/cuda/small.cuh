// SPDX-License-Identifier: MIT
// Products of matrices of small floats and vectors, in float32: a lane has 32
// columns of two rows. Vectors are kept as they are.

namespace zmlx_decode {

// Where value k of a vector is: the four values that lanes of a warp read
// together, 16 or 32 columns apart, are in different banks.
__device__ __forceinline__ int place_of(int k) {
  return (k & ~31) | ((k & 31) ^ ((k >> 5 & 7) * 4));
}

__device__ __forceinline__ void store_values(const Vector& v, int k, float4 x) {
  reinterpret_cast<float4*>(v.digits_of())[place_of(k) / 4] = x;
}

// What a warp knows of its 128 values of x.
struct Values {
  int first; // of them
  float weight;
};

template <int bits>
__device__ __forceinline__ void
load_operand(Values& x, const Vector&, int chunk, float weight) {
  x.first = chunk * kChunk;
  x.weight = weight;
}

// One piece's chunk, 16 rows by 128 columns, as it is loaded.
struct SmallChunk {
  uint4 a[2], b[2]; // words of the lane's two rows; with 4 bits one each
  u16 scale[2][2]; // of a row's first and second 16 columns
};

template <int bits, int scheme>
__device__ __forceinline__ void
load_chunk(SmallChunk& chunk, u32 slot, const Lane& at) {
  const u32 words = slot + at.words, scales = slot + at.scales;
#pragma unroll
  for (int half = 0; half < bits / 4; ++half) {
    chunk.a[half] = load_shared4(words + half * 64);
    chunk.b[half] = load_shared4(words + half * 64 + at.words_step);
  }
  // The second 16 columns follow the first, or are 64 further in groups of 32.
  constexpr u32 second = scheme == kNvfp4 ? 1 : scheme == kMxfp8 ? 2 : 0;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const u32 from = scales + row * at.scales_step;
    chunk.scale[row][0] = load_shared_byte(from);
    chunk.scale[row][1] =
        second ? load_shared_byte(from + second) : chunk.scale[row][0];
  }
}

// Two fields as two float16: of four bits the ones at 4 i and 4 i + 16, 2^-14
// times what they are; of eight at 8 i and 8 i + 16, 2^-8 times.
template <int bits>
__device__ __forceinline__ u32 two_fields(u32 word, int i) {
  if (bits == 4) {
    const u32 v = word >> (4 * i);
    return (v << 9 & 0x0e000e00u) | (v << 12 & 0x80008000u);
  }
  const u32 v = word >> (8 * i);
  return (v << 7 & 0x3f803f80u) | (v << 8 & 0x80008000u);
}

// The sum of a word's fields times x, which has as many.
template <int bits>
__device__ __forceinline__ float
multiply_word(u32 word, const float* x, float sum) {
  constexpr int half = 16 / bits; // fields
#pragma unroll
  for (int i = 0; i < half; ++i) {
    const u32 two = two_fields<bits>(word, i);
    sum = fmaf(from_float16(static_cast<u16>(two)), x[i], sum);
    sum = fmaf(from_float16(static_cast<u16>(two >> 16)), x[half + i], sum);
  }
  return sum;
}

// Adds the chunk's products to the lane's two rows.
template <int bits, int scheme>
__device__ __forceinline__ void multiply_chunk(
    const SmallChunk& chunk,
    const Vector& v,
    const Values& x,
    float& first,
    float& second) {
  constexpr float unit = bits == 4 ? 16384.0f : 256.0f;
  const int t = threadIdx.x & 3;
  const float4* values = reinterpret_cast<const float4*>(v.digits_of());
#pragma unroll
  for (int half = 0; half < 2; ++half) { // 16 columns each
    const int k =
        bits == 4 ? x.first + t * 32 + half * 16 : x.first + t * 16 + half * 64;
    const uint4 &a = chunk.a[bits == 4 ? 0 : half],
                &b = chunk.b[bits == 4 ? 0 : half];
    const u32 words[2][4] = {{a.x, a.y, a.z, a.w}, {b.x, b.y, b.z, b.w}};
    float sums[2] = {};
    constexpr int step = 32 / bits; // columns of a word
#pragma unroll
    for (int j = 0; j < 16 / step; ++j) {
      float its[step];
#pragma unroll
      for (int i = 0; i < step; i += 4) {
        const float4 four = values[place_of(k + j * step + i) / 4];
        its[i] = four.x, its[i + 1] = four.y;
        its[i + 2] = four.z, its[i + 3] = four.w;
      }
      const int at = bits == 4 ? half * 2 + j : j;
      sums[0] = multiply_word<bits>(words[0][at], its, sums[0]);
      sums[1] = multiply_word<bits>(words[1][at], its, sums[1]);
    }
    const float factor = unit * x.weight;
    first = fmaf(
        sums[0] * factor, small_scale(scheme, chunk.scale[0][half]), first);
    second = fmaf(
        sums[1] * factor, small_scale(scheme, chunk.scale[1][half]), second);
  }
}

// What products with a matrix work with.
template <int scheme>
struct Kinds {
  typedef Values Its; // operand
  typedef SmallChunk Part;
};
template <>
struct Kinds<kAffine> {
  typedef Operand Its;
  typedef Chunk Part;
};

// Four values of x at k (a multiple of 4, whole warps at consecutive k) as
// products with the matrix take them.
__device__ __forceinline__ void
store_vector(const Vector& v, int k, float4 x, const Matrix& m) {
  if (scheme_of(m) == kAffine) {
    store_digits(v, k, x, bits_of(m));
  } else {
    store_values(v, k, x);
  }
}

} // namespace zmlx_decode
