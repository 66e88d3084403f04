// SPDX-License-Identifier: MIT
// What the multiplying warps do before and after a stage's products.

namespace zmlx_decode {

// A thread's place, and what it keeps over stages.
struct Consumer {
  int tid, warp, lane;
  Ring ring;
  int stage; // index, over all tokens of the launch
  u32 sums : 1; // which of two places sums of tiles are left in
  u32 weighed : 1; // parity
};
static_assert(kRowLanes == 32); // of a tile's row: a warp

__device__ __forceinline__ const u32* count_of(const Consumer& c) {
  return block().counts + c.warp * kLine;
}
// Waits until the warp's chunks of the stage's input have been published, or
// nearly so: loads make sure of each word. `seen`: what a look on the way says.
__device__ __forceinline__ void
await_chunks(Consumer& c, const Stage& s, u32 seen) {
  Shared& shared = block();
  const u32 target = shared.targets[c.warp] + arrivals_before(s, c.warp);
  __syncwarp();
  if (c.lane == 0) {
    shared.targets[c.warp] = target;
  }
  int looks = 0;
  while (is_behind(seen, target) && keep_waiting(looks)) {
    await_arrival();
    seen = arrivals_at(count_of(c));
  }
}

// Once a stage, all multiplying warps: what they did for the stage before is
// done, and the next stage's record has arrived.
__device__ __forceinline__ void meet(Consumer& c) {
  Shared& shared = block();
  const int next = c.stage + 2;
  if (c.warp == kWarps - 1) {
    finish_copies();
  }
  sync_consumers();
  if (c.warp == kWarps - 1 && c.lane < kStageWords) {
    int of = next - shared.end; // behind the last comes the next token's first
    of += of < 0 ? shared.p.num_stages : 0;
    copy16(
        reinterpret_cast<uint4*>(&shared.stage[next % 3]) + c.lane,
        stage_words(shared, of) + c.lane);
  }
}

__device__ __forceinline__ Vector vector_of() {
  const u32 base = shared_address(shared_memory());
  const Program& p = block().p;
  return {base, p.digits_at, p.scales_at, p.sums_at};
}

// Values that the end of a stage needs, loaded before the wait for its input.
struct Early {
  u32 word; // kConv: state of lane i, as it is; kMix: four of the router's
  float factor; // kConv: tap of lane i; kMix: router_norm of the row
  u16 scale, bias; // of the router's
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
  if (unit >= s.units) {
    return early; // a block more than there are units
  }
  const int row = unit * kRows + c.warp, i = c.lane & (kRowLanes - 1);
  if (s.kind == kConv) {
    if (i < s.num_taps) {
      early.factor =
          __ldg(reinterpret_cast<const float*>(s.taps) + i * s.dim + row);
      if (i + 1 < s.num_taps) {
        const u64 state = block().caches[s.cache];
        const u32 at = i * s.dim + row;
        early.word = kCacheType == 0 ? reinterpret_cast<const u32*>(state)[at]
                                     : reinterpret_cast<const u16*>(state)[at];
      }
    }
  } else if (s.kind == kMix && s.experts) {
    early.factor = __ldg(reinterpret_cast<const float*>(s.router_norm) + row);
    const Matrix& m = s.router;
    const int expert = c.tid / 4;
    if (expert < s.experts) {
      const u32 at = expert * m.cols + unit * kRows + c.tid % 4 * 4;
      const u32 group = at >> m.group_shift;
      early.word = m.bits == 4
          ? __ldg(reinterpret_cast<const u16*>(m.words) + at / 4)
          : __ldg(reinterpret_cast<const u32*>(m.words) + at / 4);
      if (ZMLX_SCHEME != kAffine && m.scheme != kAffine) {
        early.scale = __ldg(reinterpret_cast<const u8*>(m.scales) + group);
      } else {
        early.scale = __ldg(reinterpret_cast<const u16*>(m.scales) + group);
        early.bias = __ldg(reinterpret_cast<const u16*>(m.biases) + group);
      }
    }
  }
  return early;
}

// Keeps values at k of the residual stream if they are the block's own.
__device__ __forceinline__ void keep_own(int k, const float4& v) {
  int unit = k / kRows - static_cast<int>(blockIdx.x);
#pragma unroll 1
  for (int own = 0; unit >= 0; unit -= gridDim.x, ++own) {
    if (unit == 0) {
      reinterpret_cast<float4*>(
          block().h)[own * (kRows / 4) + k / 4 % (kRows / 4)] = v;
    }
  }
}

// Waits for the warp's chunks of the stage's input, or reads them from the
// embedding, and leaves their digits and sum of squares in shared memory. A
// normed vector has at most one a warp.
__device__ __forceinline__ void
prepare_normed(Consumer& c, const Stage& s, float* sum_squares, u32 seen) {
  const float* from = block().exchange + s.x_at;
  const int k = c.tid * 4;
  const bool works = k < s.x_len; // whole warps: x_len is a multiple of 128
  float4 w = make_float4(0, 0, 0, 0), v = w;
  if (works) {
    w = __ldg(reinterpret_cast<const float4*>(s.norm) + c.tid);
  }
  if (!s.embeds) {
    await_chunks(c, s, seen);
  }
  ZMLX_MARK(c, 1);
  if (works && s.embeds) {
    v = elements(block().p.embedding, block().token, k);
    keep_own(k, v);
  } else if (works && s.sum_terms) {
    v = present_sums(
        reinterpret_cast<const u64*>(from) + k,
        s.sum_terms,
        inverse_share_scale(block().mixer_rms));
    keep_own(k, v);
  } else if (works) {
    v = load_words(from + k);
    make_present(v, from + k);
  }
  __syncwarp();
  const float squares =
      sum_lanes(v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w, 1, 32);
  if (c.lane == 0) {
    sum_squares[c.warp] = squares;
  }
  if (works) {
    const float4 h = {v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w};
    store_vector(vector_of(), k, h, s.a);
  }
}

// What products need of a stage's record, read before the wait for its input.
struct Work {
  Vector x;
  Lane at;
  u32 chunk_scales, slots;
  int chunks, slot_bytes, slots_count, pieces, own;
  int first; // unit of the block
  int first_chunk; // of the block's share of the vector
  int mine; // the warp's chunk in it
  int weight; // index of the share's first, or -1
};

__device__ __forceinline__ Work work_of(const Consumer& c, const Stage& s) {
  const Program& p = block().p;
  Work work;
  work.x = vector_of();
  work.at = lane_of(s);
  work.chunk_scales = (kChunk >> s.a.group_shift)
      << (scheme_of(s.a) == kAffine ? 1 : 0);
  work.slots = work.x.base + p.slots_at;
  work.chunks = s.piece_cols / kChunk;
  work.slot_bytes = p.slot_bytes;
  work.slots_count = p.slots;
  work.pieces = s.pieces;
  const Part part = part_of(s);
  work.own =
      part.first < s.units ? s.units_each + (part.first < s.blocks_more) : 0;
  work.first = part.first;
  const int piece = part.share * s.pieces;
  work.first_chunk = piece * work.chunks;
  work.mine = (c.warp - work.first_chunk) & (kWarps - 1);
  work.weight = -1;
  if (s.kind == kCombine && s.top_k > 0) {
    // Of cut rows a share has one piece.
    work.weight = s.inner_pieces > 1 ? piece / s.inner_pieces : piece;
  }
  return work;
}

// The vector, or the block's share of it, of which the warp has one chunk.
__device__ __forceinline__ void
prepare_plain(Consumer& c, const Stage& s, const Work& work, u32 seen) {
  const Vector x = vector_of();
  const float* from = block().exchange + s.x_at;
  int len = s.x_len;
  constexpr int step = 4 * kConsumers;
  int k = c.tid * 4;
  if (s.kind == kCombine) {
    len = work.own > 0 ? work.chunks * work.pieces * kChunk : 0;
    k = work.mine * kChunk + c.lane * 4;
    from += work.first_chunk * kChunk;
  }
  await_chunks(c, s, seen);
  ZMLX_MARK(c, 1);
  auto load = [&](int at) {
    return at < len ? load_words(from + at) : make_float4(0, 0, 0, 0);
  };
  float4 v = load(k);
#pragma unroll 1
  for (; k < len; k += step) { // whole warps
    const float4 next = load(k + step);
    make_present(v, from + k);
    __syncwarp();
    store_vector(x, k, v, s.a);
    v = next;
  }
}

// The sum of 16 values, in a tree: in a row they would wait for one another.
__device__ __forceinline__ float sum_of(const float* values) {
  static_assert(kWarps == 16);
  const float4* at = reinterpret_cast<const float4*>(values);
  float sums[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float4 v = at[i];
    sums[i] = (v.x + v.y) + (v.z + v.w);
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}
// The sum over warps of the warp's row of a tile, in every lane.
__device__ __forceinline__ float
row_sum(const Consumer& c, const float* red, int tile) {
  return sum_lanes(
      red[(tile * kWarps + (c.lane & (kWarps - 1))) * kRedStride + c.warp],
      1,
      kWarps);
}

// What the stage's input is normed by.
__device__ __forceinline__ float norm_of(
    const Stage& s,
    const float* sum_squares) {
  return inverse_root(__fdividef(sum_of(sum_squares), s.norm_len) + s.eps);
}
// Logits are summed with the norm of the layer's input: it is of the size of
// their own, and all blocks know it before.
__device__ __forceinline__ void
keep_rms(const Consumer& c, const Stage& s, float rms) {
  if (c.tid == 0 && s.kind != kExperts) {
    block().mixer_rms = rms;
  }
}

__device__ __forceinline__ void convolve(
    const Consumer& c,
    const Stage& s,
    const float* red,
    int unit,
    const float* sum_squares,
    const Early& early) {
  const int channel = unit * kRows + c.warp, i = c.lane & (kRowLanes - 1);
  const float in = row_sum(c, red, 0), out = row_sum(c, red, 1);
  const float rows = row_sum(c, red, 2), rms = norm_of(s, sum_squares);
  const float gate_in = in * rms, gate_out = out * rms, value = rows * rms;
  const int keep = s.num_taps - 1;
  const float state = kCacheType == 0
      ? __uint_as_float(early.word)
      : half_to_float(static_cast<u16>(early.word), kCacheType == 1);
  const float window = i == keep ? gate_in * value : state;
  float sum = sum_lanes(window * early.factor, 1, kMaxTaps);
  const float next = __shfl_down_sync(~0u, window, 1, kMaxTaps);
  if (i < keep) {
    store_cached(block().caches[s.cache], i * s.dim + channel, next);
  }
  if (i == 0) {
    if (s.conv_bias) {
      sum += __ldg(reinterpret_cast<const float*>(s.conv_bias) + channel);
    }
    publish(s.out_at + channel, gate_out * sum);
  }
  if (c.tid == 0) {
    block().mixer_rms = rms;
    tell_readers(unit * kRows);
  }
}

// The part of the block's rows in the next stage's mean square, as if the
// vector had the norm of its layer's input.
__device__ __forceinline__ void
add_squares(const Consumer& c, const Stage& s, int own) {
  Shared& shared = block();
  const float h =
      shared.h[own * kRows + (c.lane & (kRows - 1))] * shared.mixer_rms;
  const float squares = sum_lanes(h * h, 1, kRows);
  if (c.lane == 0) {
    add_term(
        sum_at(shared.exchange, s.logits_at, s.experts),
        __fdividef(squares, s.dim));
  }
}
// One block: says which norm that is, and makes the next token's sums absent.
__device__ __forceinline__ void tell_norm(const Consumer& c, const Stage& s) {
  Shared& shared = block();
  if (c.tid < s.experts + 2) {
    store_long(sum_at(shared.retired, s.logits_at, c.tid), ~0ull);
  }
  if (c.tid == 0) {
    store_long(
        sum_at(shared.exchange, s.logits_at, s.experts + 1),
        __float_as_uint(shared.mixer_rms));
  }
}

// The block's rows in the sums that the layer's shares are added to. Nobody
// waits for these yet; the next token's are made absent.
__device__ __forceinline__ void
share_stream(const Consumer& c, const Stage& s, int unit, int own) {
  Shared& shared = block();
  if (c.warp == kWarps - 2 && c.lane < kRows) {
    const int row = unit * kRows + c.lane;
    store_long(sum_at(shared.retired, s.sums_at, row), ~0ull);
    add_share(
        sum_at(shared.exchange, s.sums_at, row),
        shared.h[own * kRows + c.lane] * share_scale(shared.mixer_rms));
  }
}

// h += row, published; with the next stage's router, its part of the logits
// too.
__device__ __forceinline__ void add_row(
    const Consumer& c,
    const Stage& s,
    const float* red,
    int unit,
    int own,
    const Early& early) {
  Shared& shared = block();
  float* kept = &shared.h[own * kRows + c.warp];
  const float h = row_sum(c, red, 0) + *kept;
  __syncwarp();
  if ((c.lane & (kRowLanes - 1)) == 0) {
    publish(s.out_at + unit * kRows + c.warp, h);
    *kept = h;
    shared.fresh[c.warp] = h * early.factor;
  }
  sync_consumers();
  if (!s.experts) {
    if (c.tid == 0) {
      tell_readers(unit * kRows);
    }
    share_stream(c, s, unit, own);
    return;
  }
  const int expert = c.tid / 4, part = c.tid % 4; // four columns each
  const int bits = s.router.bits, mask = (1 << bits) - 1;
  const float* fresh = shared.fresh + part * 4;
  float sum = 0;
  if (ZMLX_SCHEME != kAffine && s.router.scheme != kAffine) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const u32 q = early.word >> (i * bits) & mask;
      sum += small_float(s.router.scheme, q) * fresh[i];
    }
    sum *= small_scale(s.router.scheme, early.scale);
  } else {
    const float scale = to_float(early.scale), bias = to_float(early.bias);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const u32 q = early.word >> (i * bits) & mask;
      sum += (scale * static_cast<int>(q) + bias) * fresh[i];
    }
  }
  sum = sum_lanes(sum, 1, 4);
  if (part == 0 && expert < s.experts) {
    add_term(
        sum_at(shared.exchange, s.logits_at, expert), sum * shared.mixer_rms);
  }
  if (c.warp == kWarps - 1) {
    add_squares(c, s, own);
  }
  if (unit == 0) {
    tell_norm(c, s);
  }
  if (c.tid == 0) {
    tell_readers(unit * kRows);
  }
  share_stream(c, s, unit, own);
}

__device__ __forceinline__ void silu_rows(
    const Consumer& c,
    const Stage& s,
    const float* red,
    int first,
    int tiles,
    const float* sum_squares) {
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
  gate = sum_lanes(gate, 1, parts);
  up = sum_lanes(up, 1, parts);
  const float rms = norm_of(s, sum_squares);
  gate *= rms, up *= rms;
  if (part == 0) {
    const int unit = first + tile * s.sharers;
    publish(
        s.out_at + unit * 8 + row, __fdividef(gate, 1.0f + __expf(-gate)) * up);
    if (row == 0) {
      tell_readers(unit * 8);
    }
  }
}

// Rows as they are: queries, keys and values, logits, or the residual stream's.
__device__ __forceinline__ void plain_rows(
    Consumer& c,
    const Stage& s,
    const float* red,
    int unit,
    int tiles,
    const float* sum_squares) {
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
  y = sum_lanes(y, 1, parts);
  if (s.kind != kCombine) {
    const float rms = norm_of(s, sum_squares);
    keep_rms(c, s, rms);
    y *= rms;
  }
  if (part != 0) {
    return;
  }
  const int at = (unit + tile * s.sharers) * 16 + (row & 15);
  if (s.kind == kCombine) {
    add_share(
        sum_at(block().exchange, s.out_at, at),
        y * share_scale(block().mixer_rms));
    if ((row & 15) == 0) {
      tell_readers(at);
    }
  } else if (s.kind == kQkv) {
    publish(s.out_at + at, y);
  } else {
    const int count = block().draw.count;
    if (count == 0 || block().done == count - 1) {
      block().logits[at] = y;
    }
    if (count > 0) {
      consider(y, at, row);
    }
  }
}

// Leaves the warp's sums of a tile's rows, each lane that of one, two lanes
// alike.
__device__ __forceinline__ void store_sum(int to, float first, float second) {
  const int t = threadIdx.x & 3;
  const float give = t & 1 ? first : second;
  float sum = (t & 1 ? second : first) + __shfl_xor_sync(~0u, give, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  *floats_at(to) = sum;
}

// `tiles` tiles of the stage, their sums a warp left at `red` of shared memory.
template <int bits, int scheme>
__device__ __forceinline__ void
multiply_tiles(Consumer& c, const Work& work, int red, int tiles) {
  Shared& shared = block();
  const int chunks = work.chunks, pieces = work.pieces;
  constexpr int each = kWarps * kRedStride * 4;
  const int g = c.lane >> 2;
  // Row 2 i of the instruction is row i of the tile, row 2 i + 1 row 8 + i; of
  // four lanes that share two rows the even ones end with the first.
  const int row = (g & 1) * 8 + (g >> 1) + (c.lane & 1) * 4;
  int to = red + (c.warp * kRedStride + row) * 4;
  const int end = to + tiles * each;
  // A warp has chunks warp, warp + kWarps, ... of the vector: of a piece none,
  // or `mine`.
  int mine = work.mine;
  Lane at = work.at;
  typename Kinds<scheme>::Its x = {};
  auto begin_piece = [&](int before, float weight) {
    at = work.at;
    at.words += mine * (kChunk * bits / 8);
    at.scales += mine * work.chunk_scales;
    if (mine < chunks) {
      load_operand<bits>(x, work.x, before + mine, weight);
    }
  };
  auto multiply_piece = [&](float& first, float& second) {
    wait(&shared.full[c.ring.at], c.ring.parity);
    if (mine < chunks) {
      typename Kinds<scheme>::Part chunk;
      load_chunk<bits, scheme>(
          chunk, work.slots + c.ring.at * work.slot_bytes, at);
      multiply_chunk<bits, scheme>(chunk, work.x, x, first, second);
    }
    __syncwarp();
    if (c.lane == 0) {
      arrive(&shared.empty[c.ring.at]);
    }
    c.ring.next(work.slots_count);
  };
  if (pieces == 1) {
    begin_piece(0, work.weight < 0 ? 1.0f : shared.weight[work.weight]);
#pragma unroll 1
    for (; to != end; to += each) {
      float first = 0, second = 0;
      multiply_piece(first, second);
      store_sum(to, first, second);
    }
    return;
  }
#pragma unroll 1
  for (; to != end; to += each) {
    float first = 0, second = 0;
#pragma unroll 1
    for (int piece = 0; piece < pieces; ++piece) {
      mine = (work.mine - piece * chunks) & (kWarps - 1);
      begin_piece(
          piece * chunks,
          work.weight < 0 ? 1.0f : shared.weight[work.weight + piece]);
      multiply_piece(first, second);
    }
    store_sum(to, first, second);
  }
}

__device__ __forceinline__ void multiply_tiles_of(
    Consumer& c,
    const Matrix& m,
    const Work& work,
    int red,
    int tiles) {
  const int scheme = scheme_of(m);
  if (scheme == kMxfp4) {
    multiply_tiles<4, kMxfp4>(c, work, red, tiles);
  } else if (scheme == kNvfp4) {
    multiply_tiles<4, kNvfp4>(c, work, red, tiles);
  } else if (scheme == kMxfp8) {
    multiply_tiles<8, kMxfp8>(c, work, red, tiles);
  } else if (bits_of(m) == 4) {
    multiply_tiles<4, kAffine>(c, work, red, tiles);
  } else {
    multiply_tiles<8, kAffine>(c, work, red, tiles);
  }
}

constexpr int kLate = 2; // tiles that go out last

// All of the block's tiles of a stage, reduced every kFlush tiles or one unit.
__device__ __forceinline__ void multiply_stage(
    Consumer& c,
    const Stage& s,
    const Work& work,
    const float* sum_squares,
    Early early) {
  const int own = work.own;
  if (own == 0) {
    meet(c);
    ZMLX_MARK(c, 3);
    if (s.norm) {
      keep_rms(c, s, norm_of(s, sum_squares));
    }
    return;
  }
  const bool apart = s.kind == kConv || s.kind == kMix;
  const int most = apart ? 1 : kFlush;
  // At 8 bits tiles wait for memory: all but the last go out meanwhile, which
  // took 3% of a token. At 4 bits it added 2%.
  const int late =
      s.kind == kExperts && bits_of(s.a) == 8 && own > kLate ? kLate : 0;
  int units = 0;
#pragma unroll 1
  for (int first = 0; first < own; first += units) {
    units = min(most, (first < own - late ? own - late : own) - first);
    const int tiles = units * s.tiles;
    const int unit = work.first + first * s.sharers;
    // The other place is read until all have met again.
    const int sums_at = block().p.red_at + c.sums * (kRedLen * 4);
    c.sums ^= 1;
    if (first > 0) {
      early = load_early(c, s, unit);
    }
    multiply_tiles_of(c, s.a, work, sums_at, tiles);
    const float* red = floats_at(sums_at);
    if (first == 0) {
      meet(c);
      ZMLX_MARK(c, 3);
    } else {
      sync_consumers();
    }
    if (s.kind == kConv) {
      convolve(c, s, red, unit, sum_squares, early);
    } else if (apart) {
      add_row(c, s, red, unit, first, early);
    } else if (s.kind == kExperts) {
      silu_rows(c, s, red, unit, units, sum_squares);
    } else {
      plain_rows(c, s, red, unit, units, sum_squares);
    }
  }
}

} // namespace zmlx_decode
