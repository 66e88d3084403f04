// SPDX-License-Identifier: MIT
// What the multiplying warps do before a stage's products: wait for its input,
// and make digits of it.

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

} // namespace zmlx_decode
