// SPDX-License-Identifier: MIT
// The producing warps: stream weights through a ring in shared memory, running
// ahead of the multiplying warps, over stages too; and route tokens to experts.
// Each issues a part of every piece, for a copy takes 100 cycles to issue: the
// first rows' words, the second's, scales, biases.

namespace zmlx_decode {

struct Ring {
  int at;
  u32 parity;
  __device__ __forceinline__ void next(int count) {
    if (++at == count) {
      at = 0;
      parity ^= 1;
    }
  }
};

// Of the terms of a sum so many may be missing when a look at all sums begins.
constexpr int kMissingTerms = 24;

// Waits for the sums of logits and of squares; one warp, of which lane i has
// experts i, i + 32, ...: `each` of them. Leaves logits.
template <int each>
__device__ __forceinline__ void
await_logits(const Stage& s, float* exchange, int mine, float (&logits)[each]) {
  const int lane = threadIdx.x & 31, experts = s.experts, terms = s.terms;
  // Warps look at different sums first, and at one only.
  const int first = (blockIdx.x + mine * 8) & 31;
  int looks = 0;
  while (lane == first && lane < experts &&
         terms_of(load_long(sum_at(exchange, s.logits_at, lane))) <
             terms - kMissingTerms &&
         keep_waiting(looks)) {
    await_arrival();
  }
  __syncwarp();
  u64 sums[each], squares, before;
  bool behind;
  looks = 0;
#pragma unroll 1
  do {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      // Lanes without an expert look at the first.
      const int e = lane + 32 * i < experts ? lane + 32 * i : 0;
      sums[i] = load_long(sum_at(exchange, s.logits_at, e));
    }
    squares = load_long(sum_at(exchange, s.logits_at, experts));
    before = load_long(sum_at(exchange, s.logits_at, experts + 1));
    behind = before == ~0ull || terms_of(squares) < terms;
#pragma unroll
    for (int i = 0; i < each; ++i) {
      behind |= terms_of(sums[i]) < terms;
    }
    if (behind) {
      await_word();
    }
  } while (behind && keep_waiting(looks));
  __syncwarp();
  const float rms = __uint_as_float(static_cast<u32>(before));
  const float up = inverse_root(value_of(squares) + s.eps * rms * rms);
#pragma unroll
  for (int i = 0; i < each; ++i) {
    logits[i] = value_of(sums[i]) * up;
  }
}

// Chooses the experts, and leaves the scores of all.
template <int each>
__device__ __forceinline__ void
route(const Stage& s, float* exchange, const float* bias, int mine) {
  Shared& shared = block();
  const int lane = threadIdx.x & 31, experts = s.experts, top_k = s.top_k;
  float score[each];
  u32 key[each] = {};
  await_logits<each>(s, exchange, mine, score);
  if (s.softmax) {
    float most = -infinity(), sum = 0;
#pragma unroll
    for (int i = 0; i < each; ++i) {
      most = lane + 32 * i < experts ? fmaxf(most, score[i]) : most;
    }
#pragma unroll 1
    for (int o = 16; o; o >>= 1) {
      most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
    }
#pragma unroll
    for (int i = 0; i < each; ++i) {
      score[i] = lane + 32 * i < experts ? expf(score[i] - most) : 0.0f;
      sum += score[i];
    }
    sum = sum_lanes(sum, 1, 32);
#pragma unroll
    for (int i = 0; i < each; ++i) {
      score[i] /= sum;
    }
  }
#pragma unroll
  for (int i = 0; i < each; ++i) {
    const int e = lane + 32 * i;
    if (e < experts) {
      if (!s.softmax) {
        score[i] = __fdividef(1.0f, 1.0f + __expf(-score[i]));
      }
      const float biased = score[i] + bias[i];
      key[i] = ordered(biased);
      if (mine == 0) {
        shared.scores[e] = s.weight_from_biased ? biased : score[i];
      }
    }
  }
  // The best of all, k times; of equals the first.
  int expert = 0;
#pragma unroll 1
  for (int k = 0; k < top_k; ++k) {
    u32 best = key[0];
    int at = lane;
#pragma unroll
    for (int i = 1; i < each; ++i) {
      if (key[i] > best) {
        best = key[i], at = lane + 32 * i;
      }
    }
    const u32 top = __reduce_max_sync(~0u, best);
    const int chosen = each == 1
        ? min(__ffs(__ballot_sync(~0u, best == top)), experts) - 1
        : __reduce_min_sync(~0u, best == top ? at : experts - 1);
    if (lane == k) {
      expert = chosen;
    }
#pragma unroll
    for (int i = 0; i < each; ++i) {
      key[i] = chosen == lane + 32 * i ? 0 : key[i];
    }
  }
  if (lane < top_k) {
    shared.chosen[mine][lane] = expert;
  }
  __syncwarp();
}

__device__ __forceinline__ void
choose_experts(const Stage& s, float* exchange, int mine) {
  constexpr int most = kLaneExperts ? kLaneExperts : kMaxExperts / 32;
  float bias[most] = {};
#pragma unroll
  for (int r = 0; r < most; ++r) {
    const int e = (threadIdx.x & 31) + 32 * r;
    if (s.router_bias && e < s.experts) {
      bias[r] = __ldg(reinterpret_cast<const float*>(s.router_bias) + e);
    }
  }
  if constexpr (kLaneExperts > 0) {
    route<kLaneExperts>(s, exchange, bias, mine);
  } else if (s.experts <= 32) {
    route<1>(s, exchange, bias, mine);
  } else {
    route<kMaxExperts / 32>(s, exchange, bias, mine);
  }
}

// The weights of the chosen experts; one warp, when their rows are on the way.
__device__ __forceinline__ void weigh(const Stage& s) {
  Shared& shared = block();
  const int lane = threadIdx.x & 31;
  const float weight =
      lane < s.top_k ? shared.scores[shared.chosen[0][lane]] : 0.0f;
  const float total = sum_lanes(weight, 1, kMaxTopK);
  if (lane < s.top_k) {
    shared.weight[lane] =
        (s.renormalise ? weight / (total + s.router_eps) : weight) *
        s.router_scale;
  }
  __syncwarp();
  if (lane == 0) {
    arrive(&shared.weighed);
  }
}

// One of a piece's six copies, the lane's own: words, scales or biases of the
// first or the second eight rows.
struct Copy {
  u64 from; // row 0 of the matrix
  u32 row_bytes, size, to; // to: in the slot
};

// Warps 0 and 1 copy words, with one lane; warps 2 and 3 scales and biases (if
// any), with two.
__device__ __forceinline__ Copy
copy_of(const Stage& s, const Matrix* m, int mine) {
  const u32 second = mine < 2 ? mine : threadIdx.x & 1;
  if (mine < 2) {
    const u32 bytes = s.row_bytes;
    return {m->words, bytes, 8 * bytes, second * s.words_step};
  }
  const u32 bytes = s.scale_bytes;
  return {
      mine == 2 ? m->scales : m->biases,
      bytes,
      8 * bytes,
      s.scales_at + (second + (mine == 2 ? 0u : 2u)) * s.scales_step};
}

// The warp's part of a piece of whole rows; row is that of the lane's copy.
__device__ __forceinline__ void issue_rows(
    Ring& ring,
    const Copy& copy,
    u32 row,
    u32 slot,
    u32 bytes,
    int mine,
    int lanes,
    u64 policy) {
  Shared& shared = block();
  const int lane = threadIdx.x & 31;
  u64* full = &shared.full[ring.at];
  wait(&shared.empty[ring.at], ring.parity ^ 1);
  if (mine == 0 && lane == 0) {
    arrive_expecting(full, bytes);
  }
  if (lane < lanes) {
    copy_in(
        slot + copy.to,
        copy.from + static_cast<u64>(row) * copy.row_bytes,
        copy.size,
        full,
        policy);
  }
  __syncwarp();
}

// A piece of rows that are longer than it: row by row.
__device__ __forceinline__ void issue_parts(
    const Stage& s,
    Ring& ring,
    u32 row,
    int inner,
    u32 slot,
    u32 bytes,
    int mine,
    bool biased,
    u64 policy) {
  Shared& shared = block();
  const int lane = threadIdx.x & 31;
  u64* full = &shared.full[ring.at];
  wait(&shared.empty[ring.at], ring.parity ^ 1);
  if (mine == 0 && lane == 0) {
    arrive_expecting(full, bytes);
  }
  // Warps 0 and 1 copy eight rows' words each, 2 and 3 scales and biases.
  if (lane < (mine < 2 ? 8 : mine == 3 && !biased ? 0 : 16)) {
    const int r = mine < 2 ? mine * 8 + lane : lane;
    const int second = r >> 3, i = r & 7;
    const u64 part = static_cast<u64>(row + r) * s.inner_pieces + inner;
    const u32 size = s.scale_bytes;
    if (mine < 2) {
      copy_in(
          slot + second * s.words_step + i * s.row_bytes,
          s.a.words + part * s.row_bytes,
          s.row_bytes,
          full,
          policy);
    } else {
      const int biases = mine == 2 ? 0 : 2;
      copy_in(
          slot + s.scales_at + (second + biases) * s.scales_step + i * size,
          (biases ? s.a.biases : s.a.scales) + part * size,
          size,
          full,
          policy);
    }
  }
  __syncwarp();
}

// The warp's share of the block's pieces of a stage.
__device__ __forceinline__ void issue_stage(
    const Stage& s,
    Ring& ring,
    float* exchange,
    int mine,
    bool routed,
    u64 policy) {
  Shared& shared = block();
  const int kind = s.kind, slots = shared.p.slots;
  const int second = mine < 2 ? mine : threadIdx.x & 1; // of the lane's copy
  const bool biased = scheme_of(s.a) == kAffine;
  const u32 bytes = 16 * s.row_bytes + (biased ? 32 : 16) * s.scale_bytes;
  const int lanes = mine < 2 ? 1 : mine == 3 && !biased ? 0 : 2;
  const u32 slot_bytes = shared.p.slot_bytes,
            base = shared_address(shared_memory()) + shared.p.slots_at;
  Copy copy = copy_of(s, kind == kExperts && second ? &s.b : &s.a, mine);
  // Rows 8 to 15 of a tile follow the first eight, but of kExperts.
  const int ahead = kind != kExperts && second ? 8 : 0;
  const int units = s.units, tiles = s.tiles, pieces = s.pieces, dim = s.dim;
  const int per = s.rows_a / 8, inner_pieces = s.inner_pieces;
  int which = 0, within = blockIdx.x; // kExperts: expert, eight of its rows
  const Part part = part_of(s);
  int begin = 0, inner_begin = 0; // the share's first expert, piece of its rows
  if (kind == kCombine) {
    begin = part.share * pieces;
    if (inner_pieces > 1) { // one piece a share
      inner_begin = begin % inner_pieces, begin /= inner_pieces;
    }
  }
  if (kind == kExperts && routed) {
    choose_experts(s, exchange, mine);
  }
  auto expert = [&](int i) { return routed ? shared.chosen[mine][i] : i; };
#pragma unroll 1
  for (int u = part.first; u < units; u += part.step) {
    int row = kRows * u;
    if (kind == kExperts) {
      while (within >= per) {
        within -= per, ++which;
      }
      row = expert(which) * s.rows_a + within * 8;
      within += gridDim.x;
    } else if (kind == kQkv) {
      const Matrix* m = &s.a;
      if (row >= s.rows_a + s.rows_b) {
        row -= s.rows_a + s.rows_b, m = &s.c;
      } else if (row >= s.rows_a) {
        row -= s.rows_a, m = &s.b;
      }
      copy = copy_of(s, m, mine);
    }
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
      int inner = inner_begin, at = begin;
#pragma unroll 1
      for (int piece = 0; piece < pieces; ++piece) {
        const u32 slot = base + ring.at * slot_bytes;
        const int first =
            row + tile * dim + (kind == kCombine ? expert(at) * dim : 0);
        if (inner_pieces == 1) {
          issue_rows(
              ring, copy, first + ahead, slot, bytes, mine, lanes, policy);
        } else {
          issue_parts(s, ring, first, inner, slot, bytes, mine, biased, policy);
        }
        if (++inner == inner_pieces) {
          inner = 0, ++at;
        }
        ring.next(slots);
      }
    }
  }
}

__device__ __forceinline__ bool has_pieces(int kind) {
  return kind != kAttend && kind != kMerge;
}

constexpr int kStageWords = sizeof(Stage) / 16;

__device__ __forceinline__ const uint4* stage_words(
    const Shared& shared,
    int i) {
  return shared.stages + i * kStageWords;
}

__device__ __forceinline__ void produce() {
  Shared& shared = block();
  const u64 policy = evict_first();
  Ring ring = {0, 0};
  bool routed = false;
  const int lane = threadIdx.x & 31, num_stages = shared.p.num_stages;
  const int mine = threadIdx.x / 32 - kWarps;
  auto fetch = [&](int i, int stage) {
    if (lane < kStageWords) {
      copy16(
          reinterpret_cast<uint4*>(&shared.ahead[mine][i & 1]) + lane,
          stage_words(shared, stage) + lane);
    }
  };
  fetch(0, 0);
  const int end = max(shared.draw.count, 1) * num_stages;
  int stage = 0, token = 0;
#pragma unroll 1
  for (int i = 0; i < end; ++i) {
    finish_copies();
    __syncwarp();
    const int token_now = token;
    if (++stage == num_stages) {
      stage = 0, ++token;
    }
    fetch(i + 1, stage);
    const Stage& s = shared.ahead[mine][i & 1];
    if (s.kind == kExperts) {
      routed = s.experts > 0;
    }
    if (has_pieces(s.kind)) {
      issue_stage(s, ring, half_of(token_now), mine, routed, policy);
    }
    if (s.kind == kExperts && routed && mine == 0) {
      weigh(s);
    }
  }
}

} // namespace zmlx_decode
