// SPDX-License-Identifier: MIT
// What the multiplying warps do before and after a stage's products.

namespace zmlx_decode {

// A thread's place, and what it keeps over stages.
struct Consumer {
  int tid, warp, lane;
  int row; // of a tile: one for each half of a warp
  u64 target; // of the grid's barrier
  Ring ring;
};

__device__ __forceinline__ void publish(int at, float value) {
  block().exchange[at] = value;
}

// The grid's barrier in two halves. Between them a block may do what needs no
// other block.
__device__ __forceinline__ void arrive_at_grid(Consumer& c) {
  sync_consumers();
  if (c.tid == 0) {
    arrive_grid(block().count);
  }
  c.target += gridDim.x;
}
__device__ __forceinline__ void await_grid(const Consumer& c) {
  if (c.tid == 0 && !block().failed && !wait_grid(block().count, c.target)) {
    block().failed = 1;
  }
  sync_consumers();
}

__device__ __forceinline__ Vector vector_of() {
  const u32 base = shared_address(shared_memory());
  const Program& p = block().p;
  return {base, p.digits_at, p.scales_at, p.sums_at};
}

// Values that the end of a stage needs, loaded before the wait for its input.
constexpr int kAtOnce = kConsumers / kRows; // experts
constexpr int kEarly = 32 / kAtOnce;

struct Early {
  float a, b; // kConv: state and tap of lane i; kMix: router_norm of the row
  // kMix: the router's elements of thread (expert, row)
  u32 word[kEarly];
  u16 scale[kEarly], bias[kEarly];
};

__device__ __forceinline__ float load_cached(u64 base, u32 at) {
  return kCacheType == 0
      ? reinterpret_cast<const float*>(base)[at]
      : half_to_float(reinterpret_cast<const u16*>(base)[at], kCacheType == 1);
}
// Stores v as the cache's type, and returns what was stored.
__device__ __forceinline__ float store_cached(u64 base, u32 at, float v) {
  if (kCacheType == 0) {
    reinterpret_cast<float*>(base)[at] = v;
    return v;
  }
  const u16 h = kCacheType == 1 ? to_float16(v) : to_bfloat16(v);
  reinterpret_cast<u16*>(base)[at] = h;
  return half_to_float(h, kCacheType == 1);
}

__device__ __forceinline__ Early
load_early(const Consumer& c, const Stage& s, int unit) {
  Early early = {};
  const int row = unit * kRows + c.row, i = c.lane & (kRowLanes - 1);
  if (s.kind == kConv) {
    if (i < s.num_taps) {
      early.b = __ldg(reinterpret_cast<const float*>(s.taps) + i * s.dim + row);
      if (i + 1 < s.num_taps) {
        early.a = load_cached(block().caches[s.cache], i * s.dim + row);
      }
    }
  } else if (s.kind == kMix && s.experts) {
    early.a = __ldg(reinterpret_cast<const float*>(s.router_norm) + row);
    const Matrix& m = s.router;
#pragma unroll
    for (int r = 0; r < kEarly; ++r) {
      const int e = c.tid / kRows + r * kAtOnce;
      if (e < s.experts) {
        const u32 at = e * m.cols + unit * kRows + c.tid % kRows;
        const u32 group = at >> m.group_shift;
        early.word[r] = __ldg(
            reinterpret_cast<const u32*>(m.words) +
            (at >> (m.bits == 4 ? 3 : 2)));
        early.scale[r] = __ldg(reinterpret_cast<const u16*>(m.scales) + group);
        early.bias[r] = __ldg(reinterpret_cast<const u16*>(m.biases) + group);
      }
    }
  }
  return early;
}

// Adds up what the blocks of the stage before published of the router's logits.
__device__ __forceinline__ void gather_partials(
    const Consumer& c,
    const Stage& s) {
  const int quads = s.experts / 4; // a power of two, at most 32
  const float* from = block().exchange + s.partials_at;
  const int items = s.partial_rows * quads;
  constexpr int loads = 1024 / kConsumers;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 1
  for (int base = c.tid; base < items; base += loads * kConsumers) {
    float4 v[loads];
#pragma unroll
    for (int r = 0; r < loads; ++r) {
      v[r] = base + r * kConsumers < items
          ? load4(from + (base + r * kConsumers) * 4)
          : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int r = 0; r < loads; ++r) {
      sum.x += v[r].x, sum.y += v[r].y, sum.z += v[r].z, sum.w += v[r].w;
    }
  }
#pragma unroll 1
  for (int o = quads; o < 32; o <<= 1) {
    sum.x += __shfl_xor_sync(~0u, sum.x, o);
    sum.y += __shfl_xor_sync(~0u, sum.y, o);
    sum.z += __shfl_xor_sync(~0u, sum.z, o);
    sum.w += __shfl_xor_sync(~0u, sum.w, o);
  }
  if (c.lane < quads) {
    reinterpret_cast<float4*>(
        floats_at(block().p.partials_at))[c.warp * quads + c.lane] = sum;
  }
  __syncwarp();
  if (c.lane == 0) {
    arrive(&block().routed);
  }
}

// Waits for the stage's input, and leaves its digits and the warp's share of
// its sum of squares in shared memory. Routers come before digits: experts'
// weights wait for them. Vectors are at most 2 * 4 * kConsumers long.
__device__ __forceinline__ void
prepare_normed(const Consumer& c, const Stage& s, float* sum_squares) {
  const Vector x = vector_of();
  const float* from = block().exchange + s.x_at;
  const float* norm = reinterpret_cast<const float*>(s.norm);
  const int len = s.x_len, bits = bits_of(s.a);
  constexpr int step = 4 * kConsumers;
  float4 w[2], v[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int k = c.tid * 4 + r * step;
    if (k < len) { // whole warps: len is a multiple of 128
      w[r] = __ldg(reinterpret_cast<const float4*>(norm + k));
    }
  }
  await_grid(c);
  float squares = 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int k = c.tid * 4 + r * step;
    if (k < len) {
      v[r] = load4(from + k);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (c.tid * 4 + r * step < len) {
      const float4 h = v[r];
      squares += h.x * h.x + h.y * h.y + h.z * h.z + h.w * h.w;
    }
  }
  squares = sum_lanes(squares, 1, 32);
  if (c.lane == 0) {
    sum_squares[c.warp] = squares;
  }
  if (s.kind == kExperts && s.experts) {
    gather_partials(c, s);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int k = c.tid * 4 + r * step;
    if (k < len) {
      float4 h = v[r];
      h.x *= w[r].x, h.y *= w[r].y, h.z *= w[r].z, h.w *= w[r].w;
      store_digits(x, k, h, bits);
    }
  }
}

__device__ __forceinline__ void prepare_plain(
    const Consumer& c,
    const Stage& s) {
  const Vector x = vector_of();
  const float* from = block().exchange + s.x_at;
  const int len = s.x_len, bits = bits_of(s.a);
  constexpr int step = 4 * kConsumers;
  await_grid(c);
  constexpr int loads = 2048 / kConsumers;
#pragma unroll 1
  for (int base = c.tid * 4; base < len; base += loads * step) {
    float4 v[loads];
#pragma unroll
    for (int r = 0; r < loads; ++r) {
      if (base + r * step < len) {
        v[r] = load4(from + base + r * step);
      }
    }
#pragma unroll
    for (int r = 0; r < loads; ++r) {
      const int k = base + r * step;
      if (k < len) {
        store_digits(x, k, v[r], bits);
      }
    }
  }
}

// What products need of a stage's record, read before the wait for its input.
struct Work {
  Vector x;
  Lane at;
  u32 next_scales, slots;
  int chunks, slot_bytes, slots_count, pieces, inner_pieces, own;
  bool weighted;
};

__device__ __forceinline__ Work work_of(const Consumer& c, const Stage& s) {
  const Program& p = block().p;
  Work work;
  work.x = vector_of();
  work.at = bits_of(s.a) == 4 ? lane_of<4>(s, c.warp) : lane_of<8>(s, c.warp);
  work.next_scales = (kWarps * kChunk >> s.a.group_shift) * 2;
  work.slots = work.x.base + p.slots_at;
  work.chunks = s.piece_cols / kChunk;
  work.slot_bytes = p.slot_bytes;
  work.slots_count = p.slots;
  work.pieces = s.pieces;
  work.inner_pieces = s.inner_pieces;
  work.weighted = s.kind == kCombine && s.top_k > 0;
  work.own = 0;
#pragma unroll 1
  for (int u = blockIdx.x; u < s.units; u += gridDim.x) {
    ++work.own;
  }
  return work;
}

// The sum over warps of the half warp's row of a tile, in every lane.
__device__ __forceinline__ float
row_sum(const Consumer& c, const float* red, int tile) {
  return sum_lanes(
      red[(tile * kWarps + (c.lane & (kWarps - 1))) * kRedStride + c.row],
      1,
      kWarps);
}

__device__ __forceinline__ void convolve(
    const Consumer& c,
    const Stage& s,
    const float* red,
    int unit,
    float rms,
    const Early& early) {
  const int channel = unit * kRows + c.row, i = c.lane & (kRowLanes - 1);
  const float gate_in = row_sum(c, red, 0) * rms;
  const float gate_out = row_sum(c, red, 1) * rms;
  const float value = row_sum(c, red, 2) * rms;
  const int keep = s.num_taps - 1;
  const float window = i == keep ? gate_in * value : early.a;
  float sum = sum_lanes(window * early.b, 1, kRowLanes);
  const float next = __shfl_down_sync(~0u, window, 1, kRowLanes);
  if (i < keep) {
    store_cached(block().caches[s.cache], i * s.dim + channel, next);
  }
  if (i == 0) {
    if (s.conv_bias) {
      sum += __ldg(reinterpret_cast<const float*>(s.conv_bias) + channel);
    }
    publish(s.out_at + channel, gate_out * sum);
  }
}

// h += row, published; with the next stage's router, its partial logits too.
__device__ __forceinline__ void add_row(
    const Consumer& c,
    const Stage& s,
    const float* red,
    int unit,
    int own,
    const Early& early) {
  Shared& shared = block();
  float* kept = &shared.h[own * kRows + c.row];
  const float h = row_sum(c, red, 0) + *kept;
  __syncwarp();
  if ((c.lane & (kRowLanes - 1)) == 0) {
    publish(s.out_at + unit * kRows + c.row, h);
    *kept = h;
    shared.fresh[c.row] = h * early.a;
  }
  if (!s.experts) {
    return;
  }
  sync_consumers();
  const int i = c.tid % kRows, of = c.tid / kRows;
  const float fresh = shared.fresh[i];
  const Matrix& m = s.router;
  const int at = s.partials_at + unit * s.experts + of;
#pragma unroll
  for (int r = 0; r < kEarly; ++r) {
    const u32 q = (early.word[r] >> (i * m.bits & 31)) & ((1 << m.bits) - 1);
    const float weight = to_float(early.scale[r]) * q + to_float(early.bias[r]);
    const float part = sum_lanes(weight * fresh, 1, 16);
    if (i == 0 && of + r * kAtOnce < s.experts) {
      publish(at + r * kAtOnce, part);
    }
  }
#pragma unroll 1
  for (int e = 32; e < s.experts; e += kAtOnce) {
    const float weight =
        e + of < s.experts ? element(m, e + of, unit * kRows + i) : 0.0f;
    const float part = sum_lanes(weight * fresh, 1, 16);
    if (i == 0 && e + of < s.experts) {
      publish(at + e, part);
    }
  }
}

__device__ __forceinline__ void silu_rows(
    const Consumer& c,
    const Stage& s,
    const float* red,
    int first,
    int tiles,
    float rms) {
  constexpr int parts = kConsumers / (kFlush * 8);
  const int pair = c.tid / parts, part = c.tid % parts;
  const int tile = pair >> 3, row = pair & 7;
  if (tile >= tiles) {
    return; // whole warps
  }
  float gate = 0, up = 0;
#pragma unroll
  for (int i = 0; i < kWarps / parts; ++i) {
    const float* at =
        red + (tile * kWarps + part * (kWarps / parts) + i) * kRedStride + row;
    gate += at[0];
    up += at[8];
  }
  gate = sum_lanes(gate, 1, parts) * rms;
  up = sum_lanes(up, 1, parts) * rms;
  if (part == 0) {
    const int unit = blockIdx.x + (first + tile) * gridDim.x;
    publish(s.out_at + unit * 8 + row, gate / (1.0f + expf(-gate)) * up);
  }
}

// Rows as they are: queries, keys and values, or logits.
__device__ __forceinline__ void plain_rows(
    Consumer& c,
    const Stage& s,
    const float* red,
    int first,
    int tiles,
    float rms) {
  constexpr int parts = kConsumers / (kFlush * kRows);
  const int row = c.tid / parts, part = c.tid % parts, tile = row >> 4;
  if (tile >= tiles) {
    return; // whole warps
  }
  float y = 0;
#pragma unroll
  for (int i = 0; i < kWarps / parts; ++i) {
    y +=
        red[(tile * kWarps + part * (kWarps / parts) + i) * kRedStride +
            (row & 15)];
  }
  y = sum_lanes(y, 1, parts) * rms;
  if (part != 0) {
    return;
  }
  const int at = (blockIdx.x + (first + tile) * gridDim.x) * 16 + (row & 15);
  if (s.kind == kQkv) {
    publish(s.out_at + at, y);
  } else {
    block().logits[at] = y;
  }
}

// `tiles` tiles of the stage, their sums a warp left in `red`.
template <int bits>
__device__ __forceinline__ void
multiply_tiles(Consumer& c, const Work& work, float* red, int tiles) {
  Shared& shared = block();
  const int chunks = work.chunks;
  // A warp has chunks warp, warp + kWarps, ... of each piece.
  const bool works = c.warp < chunks;
  const bool whole = c.warp + (kPerWarp - 1) * kWarps < chunks;
  const Vector v = work.x;
  const u32 slots = work.slots;
  const int slot_bytes = work.slot_bytes, count = work.slots_count;
  const int pieces = work.pieces, inner = work.inner_pieces;
  const bool weighted = work.weighted;
  Lane at[kPerWarp];
#pragma unroll
  for (int i = 0; i < kPerWarp; ++i) {
    at[i] = work.at;
    at[i].words += i * kWarps * (kChunk * bits / 8);
    at[i].scales += i * work.next_scales;
  }
  Operand x[kPerWarp];
  auto load_operands = [&](int first, float weight) {
#pragma unroll
    for (int i = 0; i < kPerWarp; ++i) {
      if (c.warp + i * kWarps < chunks) {
        load_operand<bits>(x[i], v, first + c.warp + i * kWarps, weight);
      }
    }
  };
  if (pieces == 1) {
    load_operands(0, 1.0f);
  }
  const int g = c.lane >> 2;
  float* to = red + c.warp * kRedStride + (g & 1) * 8 + (g >> 1);
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    float sum0[kPerWarp] = {}, sum1[kPerWarp] = {};
    int expert = 0, inner_piece = 0;
#pragma unroll 1
    for (int piece = 0; piece < pieces; ++piece) {
      if (pieces > 1) {
        load_operands(piece * chunks, weighted ? shared.weight[expert] : 1.0f);
      }
      wait(&shared.full[c.ring.at], c.ring.parity);
      const u32 slot = slots + c.ring.at * slot_bytes;
      Chunk chunk[kPerWarp];
      if (whole) {
#pragma unroll
        for (int i = 0; i < kPerWarp; ++i) {
          load_chunk<bits>(chunk[i], slot, at[i]);
        }
#pragma unroll
        for (int i = 0; i < kPerWarp; ++i) {
          multiply_chunk<bits>(chunk[i], x[i], sum0[i], sum1[i]);
        }
      } else if (works) { // kPerWarp is 2
        load_chunk<bits>(chunk[0], slot, at[0]);
        multiply_chunk<bits>(chunk[0], x[0], sum0[0], sum1[0]);
      }
      __syncwarp();
      if (c.lane == 0) {
        arrive(&shared.empty[c.ring.at]);
      }
      c.ring.next(count);
      if (++inner_piece == inner) {
        inner_piece = 0, ++expert;
      }
    }
    float first = 0, second = 0;
#pragma unroll
    for (int i = 0; i < kPerWarp; ++i) {
      first += sum0[i], second += sum1[i];
    }
    first = sum_lanes(first, 1, 4);
    second = sum_lanes(second, 1, 4);
    if ((c.lane & 3) == 0) {
      to[0] = first;
      to[4] = second;
    }
    to += kWarps * kRedStride;
  }
}

// All of the block's tiles of a stage, reduced every kFlush tiles or one unit.
__device__ __forceinline__ void multiply_stage(
    Consumer& c,
    const Stage& s,
    const Work& work,
    float rms,
    Early early) {
  float* red = floats_at(block().p.red_at);
  const int own = work.own;
  const bool apart = s.kind == kConv || s.kind == kMix || s.kind == kCombine;
  const int most = apart ? 1 : kFlush;
#pragma unroll 1
  for (int first = 0; first < own; first += most) {
    const int units = min(most, own - first), tiles = units * s.tiles;
    const int unit = blockIdx.x + first * gridDim.x;
    if (first > 0) {
      early = load_early(c, s, unit);
      sync_consumers(); // the sums of before have been read
    }
    if (bits_of(s.a) == 4) {
      multiply_tiles<4>(c, work, red, tiles);
    } else {
      multiply_tiles<8>(c, work, red, tiles);
    }
    sync_consumers();
    if (s.kind == kConv) {
      convolve(c, s, red, unit, rms, early);
    } else if (apart) {
      add_row(c, s, red, unit, first, early);
    } else if (s.kind == kExperts) {
      silu_rows(c, s, red, first, units, rms);
    } else {
      plain_rows(c, s, red, first, units, rms);
    }
  }
}

} // namespace zmlx_decode
