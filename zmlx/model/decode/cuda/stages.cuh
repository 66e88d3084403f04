// SPDX-License-Identifier: MIT
// A stage's products, tile by tile.

namespace zmlx_decode {

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
