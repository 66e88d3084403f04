// SPDX-License-Identifier: MIT
// What the multiplying warps do with a stage's products: add up their rows, and
// hand the results on.

namespace zmlx_decode {

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

} // namespace zmlx_decode
