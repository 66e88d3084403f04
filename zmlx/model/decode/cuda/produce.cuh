// SPDX-License-Identifier: MIT
// The producing warps: stream weights through a ring in shared memory, running
// ahead of the multiplying warps, over stages too; and route tokens to experts.
// Each issues a part of every piece, for a copy takes 100 cycles to issue: the
// first rows' words, the second's, scales, biases.

namespace zmlx_decode {

// The start of a block's shared memory; the ring and the rest follow.
struct Shared {
  u64 full[kMaxSlots], empty[kMaxSlots], routed, weighed;
  alignas(16) Stage stage[3];
  alignas(16) Stage ahead[kProducers][2];
  alignas(16) Program p;
  const uint4* stages;
  const u64* caches; // addresses
  float* exchange;
  u64* count; // of arrivals at the grid's barriers
  u64 first_count; // before this launch
  float* logits;
  int token, position, capacity;
  int failed;
  float sum_squares[2][kWarps];
  float h[kMaxOwn * kRows]; // the block's own rows of the residual stream
  float fresh[kRows];
  float weight[kMaxTopK];
  int chosen[kProducers][kMaxTopK];
  float cosines[kMaxHalf], sines[kMaxHalf];
};

static_assert(sizeof(Shared) <= kHeadBytes);

__device__ __forceinline__ Shared& block() {
  return *reinterpret_cast<Shared*>(shared_memory());
}
__device__ __forceinline__ float* floats_at(int offset) {
  return reinterpret_cast<float*>(shared_memory() + offset);
}

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

// Floats as unsigned integers of the same order; NaN lowest.
__device__ __forceinline__ u32 ordered(float v) {
  const u32 bits = __float_as_uint(v);
  return v == v ? (bits >> 31 ? ~bits : bits | 0x80000000u) : 0;
}

// Chooses the experts from the partial logits of all warps; one warp, of which
// lane i has experts i, i + 32, i + 64 and i + 96.
__device__ __forceinline__ void route(
    const Stage& s,
    Shared& shared,
    const float* sum_squares,
    const float (&bias)[4],
    int mine) {
  const float* partials = floats_at(shared.p.partials_at);
  const int lane = threadIdx.x & 31, experts = s.experts, top_k = s.top_k;
  const float squares = sum_lanes(sum_squares[lane & (kWarps - 1)], 1, kWarps);
  const float rms = 1.0f / sqrtf(squares / s.norm_len + s.eps);
  float score[4], most = -infinity(), sum = 0;
  u32 key[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int e = lane + 32 * i;
    score[i] = -infinity();
    if (e < experts) {
      float logit = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        logit += partials[w * experts + e];
      }
      score[i] = logit * rms;
      most = fmaxf(most, score[i]);
    }
  }
  if (s.softmax) {
#pragma unroll 1
    for (int o = 16; o; o >>= 1) {
      most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      score[i] = lane + 32 * i < experts ? expf(score[i] - most) : 0.0f;
      sum += score[i];
    }
    sum = sum_lanes(sum, 1, 32);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int e = lane + 32 * i;
    if (e < experts) {
      score[i] = s.softmax ? score[i] / sum
                           : __fdividef(1.0f, 1.0f + __expf(-score[i]));
      const float biased = score[i] + bias[i];
      key[i] = ordered(biased);
      score[i] = s.weight_from_biased ? biased : score[i];
    }
  }
  // The best of all, k times; of equals the first.
  float total = 0, weight = 0;
  int expert = 0;
#pragma unroll 1
  for (int k = 0; k < top_k; ++k) {
    u32 best = key[0];
    int at = lane;
    float its = score[0];
#pragma unroll
    for (int i = 1; i < 4; ++i) {
      if (key[i] > best) {
        best = key[i], at = lane + 32 * i, its = score[i];
      }
    }
    const u32 top = __reduce_max_sync(~0u, best);
    const int chosen = __reduce_min_sync(~0u, best == top ? at : experts - 1);
    its = __shfl_sync(~0u, its, chosen & 31);
    total += its;
    if (lane == k) {
      weight = its, expert = chosen;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      key[i] = chosen == lane + 32 * i ? 0 : key[i];
    }
  }
  if (lane < top_k) {
    shared.chosen[mine][lane] = expert;
    if (mine == 0) {
      shared.weight[lane] =
          (s.renormalise ? weight / (total + s.router_eps) : weight) *
          s.router_scale;
    }
  }
  __syncwarp();
}

// One of a piece's six copies, the lane's own: words, scales or biases of the
// first or the second eight rows.
struct Copy {
  u64 from; // row 0 of the matrix
  u32 row_bytes, size, to; // to: in the slot
};

// Warps 0 and 1 copy words, with one lane; warps 2 and 3 scales and biases,
// with two.
__device__ __forceinline__ Copy
copy_of(const Stage& s, const Matrix* m, int mine) {
  const u32 second = mine < 2 ? mine : threadIdx.x & 1;
  if (mine < 2) {
    const u32 bytes = s.row_bytes;
    return {m->words, bytes, 8 * bytes, second * s.words_step};
  }
  const u32 bytes = 2 * s.groups;
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
    u64 policy) {
  Shared& shared = block();
  const int lane = threadIdx.x & 31;
  u64* full = &shared.full[ring.at];
  wait(&shared.empty[ring.at], ring.parity ^ 1);
  if (mine == 0 && lane == 0) {
    arrive_expecting(full, bytes);
  }
  if (lane < (mine < 2 ? 1 : 2)) {
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
    u64 policy) {
  Shared& shared = block();
  const int lane = threadIdx.x & 31;
  u64* full = &shared.full[ring.at];
  wait(&shared.empty[ring.at], ring.parity ^ 1);
  if (mine == 0 && lane == 0) {
    arrive_expecting(full, bytes);
  }
  // Warps 0 and 1 copy eight rows' words each, 2 and 3 scales and biases.
  if (lane < (mine < 2 ? 8 : 16)) {
    const int r = mine < 2 ? mine * 8 + lane : lane;
    const int second = r >> 3, i = r & 7;
    const u64 part = static_cast<u64>(row + r) * s.inner_pieces + inner;
    const u32 size = 2 * s.groups;
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
__device__ __forceinline__ void
issue_stage(const Stage& s, Ring& ring, int mine, bool routed, u64 policy) {
  Shared& shared = block();
  const int kind = s.kind, slots = shared.p.slots;
  const int second = mine < 2 ? mine : threadIdx.x & 1; // of the lane's copy
  const u32 bytes = 16 * s.row_bytes + 64 * s.groups;
  const u32 slot_bytes = shared.p.slot_bytes,
            base = shared_address(shared_memory()) + shared.p.slots_at;
  Copy copy = copy_of(s, kind == kExperts && second ? &s.b : &s.a, mine);
  // Rows 8 to 15 of a tile follow the first eight, but of kExperts.
  const int ahead = kind != kExperts && second ? 8 : 0;
  const int units = s.units, tiles = s.tiles, pieces = s.pieces, dim = s.dim;
  const int per = s.rows_a / 8, inner_pieces = s.inner_pieces;
  int which = 0, within = blockIdx.x; // kExperts: expert, eight of its rows
  auto expert = [&](int i) { return routed ? shared.chosen[mine][i] : i; };
#pragma unroll 1
  for (int u = blockIdx.x; u < units; u += gridDim.x) {
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
      int inner = 0, at = 0;
#pragma unroll 1
      for (int piece = 0; piece < pieces; ++piece) {
        const u32 slot = base + ring.at * slot_bytes;
        const int first =
            row + tile * dim + (kind == kCombine ? expert(at) * dim : 0);
        if (inner_pieces == 1) {
          issue_rows(ring, copy, first + ahead, slot, bytes, mine, policy);
        } else {
          issue_parts(s, ring, first, inner, slot, bytes, mine, policy);
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
  u32 routed_parity = 0;
  bool routed = false;
  const int lane = threadIdx.x & 31, num_stages = shared.p.num_stages;
  const int mine = threadIdx.x / 32 - kWarps;
  auto fetch = [&](int i) {
    if (lane < kStageWords) {
      copy16(
          reinterpret_cast<uint4*>(&shared.ahead[mine][i & 1]) + lane,
          stage_words(shared, i) + lane);
    }
  };
  fetch(0);
#pragma unroll 1
  for (int i = 0; i < num_stages; ++i) {
    finish_copies();
    __syncwarp();
    if (i + 1 < num_stages) {
      fetch(i + 1);
    }
    const Stage& s = shared.ahead[mine][i & 1];
    if (s.kind == kExperts) {
      routed = s.experts > 0;
      if (routed) {
        float bias[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          bias[j] = s.router_bias && lane + 32 * j < s.experts
              ? __ldg(
                    reinterpret_cast<const float*>(s.router_bias) + lane +
                    32 * j)
              : 0.0f;
        }
        wait(&shared.routed, routed_parity);
        routed_parity ^= 1;
        route(s, shared, shared.sum_squares[i & 1], bias, mine);
        if (mine == 0 && lane == 0) {
          arrive(&shared.weighed);
        }
      }
    }
    if (has_pieces(s.kind)) {
      issue_stage(s, ring, mine, routed, policy);
    }
  }
}

} // namespace zmlx_decode
