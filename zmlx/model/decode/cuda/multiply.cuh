// SPDX-License-Identifier: MIT
// Products of packed weights and vectors, exact but for one rounding a group.
//
// A vector becomes integers of 31 bits (27 for the odd columns of weights of
// four bits) with one scale for 128 values, cut into four signed bytes that
// take four columns of an integer matrix instruction; the other four columns
// serve the second 64 of the 128.

namespace zmlx_decode {

__device__ __forceinline__ float sum_lanes(float v, int from, int to) {
#pragma unroll
  for (int o = from; o < to; o <<= 1) {
    v += __shfl_xor_sync(~0u, v, o);
  }
  return v;
}

__device__ __forceinline__ float half_to_float(u16 bits, bool is_half) {
  if (!is_half) {
    return __uint_as_float(static_cast<u32>(bits) << 16);
  }
  return from_float16(bits);
}
__device__ __forceinline__ float to_float(u16 scale) {
  return half_to_float(scale, kHalfScales);
}
__device__ __forceinline__ int bits_of(const Matrix& m) {
  return ZMLX_BITS ? ZMLX_BITS : m.bits;
}
__device__ __forceinline__ int scheme_of(const Matrix& m) {
  return ZMLX_SCHEME < 0 ? m.scheme : ZMLX_SCHEME;
}

// The values of small floats, of which NaN is none, and of their scales.
__device__ __forceinline__ float e4m3(u32 q) {
  return from_float16(static_cast<u16>((q & 0x7f) << 7 | (q & 0x80) << 8)) *
      256.0f;
}
__device__ __forceinline__ float e2m1(u32 q) {
  return from_float16(static_cast<u16>((q & 7) << 9 | (q & 8) << 12)) *
      16384.0f;
}
__device__ __forceinline__ float small_float(int scheme, u32 q) {
  return scheme == kMxfp8 ? e4m3(q) : e2m1(q);
}
__device__ __forceinline__ float small_scale(int scheme, u32 byte) {
  return scheme == kNvfp4 ? e4m3(byte)
                          : __uint_as_float(byte ? byte << 23 : 0x00400000u);
}

// Columns col to col + 3 of a row, col a multiple of four.
__device__ __forceinline__ float4 elements(const Matrix& m, u32 row, int col) {
  const u64 at = static_cast<u64>(row) * m.cols + col;
  const u64 group = at >> m.group_shift;
  const u32 word = m.bits == 4
      ? __ldg(reinterpret_cast<const u16*>(m.words) + at / 4)
      : __ldg(reinterpret_cast<const u32*>(m.words) + at / 4);
  const bool small = ZMLX_SCHEME != kAffine && m.scheme != kAffine;
  float scale, bias = 0;
  if (small) {
    const u8 byte = __ldg(reinterpret_cast<const u8*>(m.scales) + group);
    scale = small_scale(m.scheme, byte);
  } else {
    scale = to_float(__ldg(reinterpret_cast<const u16*>(m.scales) + group));
    bias = to_float(__ldg(reinterpret_cast<const u16*>(m.biases) + group));
  }
  float v[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const u32 q = (word >> (i * m.bits)) & ((1u << m.bits) - 1);
    v[i] = scale *
            (small ? small_float(m.scheme, q)
                   : static_cast<float>(static_cast<int>(q))) +
        bias;
  }
  return make_float4(v[0], v[1], v[2], v[3]);
}

// What a warp knows of its 128 values of x: the matrix operand, and per lane
// the factors of its two columns, of which the second counts 256 times the
// first, and of the group's bias.
struct Operand {
  u32 digits[8];
  float scale, sum;
};

// Where a vector is in shared memory, in bytes from its start.
struct Vector {
  u32 base; // address of shared memory
  int digits; // (len / 16, 4, 4) words
  int scales; // (len / 128) float
  int sums; // (len / 64) float

  __device__ __forceinline__ u32* digits_of() const {
    return reinterpret_cast<u32*>(shared_memory() + digits);
  }
  __device__ __forceinline__ float* scales_of() const {
    return reinterpret_cast<float*>(shared_memory() + scales);
  }
  __device__ __forceinline__ float* sums_of() const {
    return reinterpret_cast<float*>(shared_memory() + sums);
  }
};

template <int bits>
__device__ __forceinline__ void
load_operand(Operand& x, const Vector& v, int chunk, float weight) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int half = g >> 2, d = g & 3;
  const u32 at = v.base + v.digits + chunk * 512 + d * 16;
  uint4 first = make_uint4(0, 0, 0, 0), second = first;
  if (bits == 4) {
    if (half == (t >> 1)) {
      first = load_shared4(at + t * 128);
      second = load_shared4(at + t * 128 + 64);
    }
  } else if (half) {
    second = load_shared4(at + (4 + t) * 64);
  } else {
    first = load_shared4(at + t * 64);
  }
  x.digits[0] = first.x, x.digits[1] = first.y;
  x.digits[2] = first.z, x.digits[3] = first.w;
  x.digits[4] = second.x, x.digits[5] = second.y;
  x.digits[6] = second.z, x.digits[7] = second.w;
  const float scale = v.scales_of()[chunk] * weight;
  const float sum = v.sums_of()[chunk * 2 + (t >> 1)] * weight;
  x.scale = (t & 1) ? scale * 65536.0f : scale;
  x.sum = (t & 1) ? 0.0f : sum;
}

// Where a lane's words and scales are in a slot. Rows 8 to 15 lie a little
// further than the first eight end, so that the lanes of rows i and 8 + i,
// which read together, meet different banks: row 2 i of the instruction is row
// i of the tile, row 2 i + 1 is row 8 + i.
struct Lane {
  u32 words, words_step, scales, scales_step;
};

__device__ __forceinline__ Lane lane_of(const Stage& s) { // in chunk 0
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int second = g & 1, row = g >> 1;
  u32 scale = 0; // of the lane's first column
  if (scheme_of(s.a) == kAffine) {
    scale = ((t >> 1) * 64 >> s.a.group_shift) * 2;
  } else {
    scale = (bits_of(s.a) == 4 ? t * 32 : t * 16) >> s.a.group_shift;
  }
  return {
      static_cast<u32>(second * s.words_step + row * s.row_bytes + t * 16),
      static_cast<u32>(4 * s.row_bytes),
      static_cast<u32>(
          s.scales_at + second * s.scales_step + row * s.scale_bytes) +
          scale,
      static_cast<u32>(4 * s.scale_bytes)};
}

// One piece's chunk, 16 rows by 128 columns, as it is loaded.
struct Chunk {
  uint4 a[2], b[2]; // words of the lane's two rows; with 4 bits one each
  u16 scale[2], bias[2];
};

template <int bits, int scheme>
__device__ __forceinline__ void
load_chunk(Chunk& chunk, u32 slot, const Lane& at) {
  const u32 words = slot + at.words, scales = slot + at.scales;
#pragma unroll
  for (int half = 0; half < bits / 4; ++half) {
    chunk.a[half] = load_shared4(words + half * 64);
    chunk.b[half] = load_shared4(words + half * 64 + at.words_step);
  }
  chunk.scale[0] = load_shared_half(scales);
  chunk.scale[1] = load_shared_half(scales + at.scales_step);
  chunk.bias[0] = load_shared_half(scales + 2 * kScalesStep);
  chunk.bias[1] = load_shared_half(scales + 2 * kScalesStep + at.scales_step);
}

// Adds the chunk's products to the lane's two rows.
template <int bits, int scheme>
__device__ __forceinline__ void multiply_chunk(
    const Chunk& chunk,
    const Vector&,
    const Operand& x,
    float& first,
    float& second) {
  // Two sums, so that instructions wait less for one another.
  int c[4] = {}, odds[4] = {};
  if (bits == 4) {
    const u32 even = 0x0f0f0f0fu;
    const uint4 &a = chunk.a[0], &b = chunk.b[0];
    const u32 v[4] = {a.x, a.y, a.z, a.w}, w[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      multiply(
          j & 1 ? odds : c,
          v[j] & even,
          w[j] & even,
          v[j],
          w[j],
          x.digits[2 * j],
          x.digits[2 * j + 1]);
    }
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 &a = chunk.a[half], &b = chunk.b[half];
      multiply(
          c, a.x, b.x, a.y, b.y, x.digits[half * 4], x.digits[half * 4 + 1]);
      multiply(
          odds,
          a.z,
          b.z,
          a.w,
          b.w,
          x.digits[half * 4 + 2],
          x.digits[half * 4 + 3]);
    }
  }
  // Up to 2^21 each: both columns' digits fit one integer.
  const float v0 =
      static_cast<float>(c[0] + odds[0] + (c[1] + odds[1]) * 256) * x.scale;
  const float v1 =
      static_cast<float>(c[2] + odds[2] + (c[3] + odds[3]) * 256) * x.scale;
  first = fmaf(to_float(chunk.scale[0]), v0, first);
  second = fmaf(to_float(chunk.scale[1]), v1, second);
  first = fmaf(to_float(chunk.bias[0]), x.sum, first);
  second = fmaf(to_float(chunk.bias[1]), x.sum, second);
}

// Four values of x at k (a multiple of 4, whole warps at consecutive k) into
// digits. bits says which order of bytes the weights' unpacking asks for.
__device__ __forceinline__ void
store_digits(const Vector& v, int k, float4 x, int bits) {
  const int lane = threadIdx.x & 31;
  const float most =
      fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
  u32 bits_of_most = __float_as_uint(most);
  bits_of_most = __reduce_max_sync(~0u, bits_of_most);
  u32 exponent = bits_of_most >> 23;
  exponent = exponent < 30 ? 30 : exponent;
  const float up = __uint_as_float((283 - exponent) << 23);
  float down = __uint_as_float((exponent - 29) << 23);
  if (exponent >= 255) {
    down = __uint_as_float(0x7fc00000u); // an infinity or a NaN spoils all
  }
  const u32 o = 0x00808080u;
  // Odd weights of four bits are taken where they lie, 16 times too large and
  // with the even ones below them, whose part goes off the even columns.
  const bool packed = bits == 4;
  const float up_odd = packed ? up * 0.0625f : up;
  const u32 n1 = __float2int_rn(x.y * up_odd);
  const u32 n3 = __float2int_rn(x.w * up_odd);
  const u32 n0 = __float2int_rn(x.x * up) - (packed ? n1 : 0);
  const u32 n2 = __float2int_rn(x.z * up) - (packed ? n3 : 0);
  u32 d0 = (n0 + o) ^ o, d1 = (n1 + o) ^ o;
  u32 d2 = (n2 + o) ^ o, d3 = (n3 + o) ^ o;
  const bool odd = lane & 1;
  if (packed) { // even k of eight, then odd k
    const u32 give0 = odd ? d0 : d1, give1 = odd ? d2 : d3;
    const u32 got0 = __shfl_xor_sync(~0u, give0, 1);
    const u32 got1 = __shfl_xor_sync(~0u, give1, 1);
    if (odd) {
      d2 = d1, d0 = got0, d1 = got1; // k 1, 3, 5, 7
    } else {
      d1 = d2, d2 = got0, d3 = got1; // k 0, 2, 4, 6
    }
  }
  const u32 a = __byte_perm(d0, d1, 0x5140), b = __byte_perm(d2, d3, 0x5140);
  const u32 e = __byte_perm(d0, d1, 0x7362), f = __byte_perm(d2, d3, 0x7362);
  u32* to = v.digits_of() + (k >> 4) * 16 + ((k >> 3) & 1) * 2 + odd;
  to[0] = __byte_perm(a, b, 0x5410);
  to[4] = __byte_perm(a, b, 0x7632);
  to[8] = __byte_perm(e, f, 0x5410);
  to[12] = __byte_perm(e, f, 0x7632);
  const float sum = sum_lanes(x.x + x.y + x.z + x.w, 1, 16);
  if ((lane & 15) == 0) {
    v.sums_of()[k >> 6] = sum;
    if (lane == 0) {
      v.scales_of()[k >> 7] = down;
    }
  }
}

} // namespace zmlx_decode
