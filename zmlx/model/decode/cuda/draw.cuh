// SPDX-License-Identifier: MIT
// The choice of the next token: the most likely one, or one drawn from the
// softmax at a temperature, as zmlx::Sampler draws it: the largest of logits
// over temperature plus Gumbel noise from Threefry-2x32, a counter based
// generator, with a key of its own for each token. Of equals the first.

namespace zmlx_decode {

// The key of the token's draw, from the seed and the number of the draw.
__device__ __forceinline__ void begin_draw(int tid) {
  Shared& shared = block();
  if (tid == 0) {
    const u64 seed =
        static_cast<u64>(shared.draw.seed_high) << 32 | shared.draw.seed_low;
    u64 z = seed +
        (static_cast<u64>(static_cast<u32>(shared.drawn)) + 1) *
            0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    shared.key[0] = static_cast<u32>(z >> 32);
    shared.key[1] = static_cast<u32>(z);
  }
}

// Before the head, when no router is at work.
__device__ __forceinline__ void begin_choice(int tid) {
  if (tid < kFlush * kRows) {
    block().best[tid] = 0;
  }
}

// Word `second` of the block at (a, b); Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3", 20 rounds.
__device__ __forceinline__ u32 threefry(u32 a, u32 b, bool second) {
  const u32 first_key = block().key[0], second_key = block().key[1];
  const u32 keys[3] = {
      first_key, second_key, first_key ^ second_key ^ 0x1bd11bdau};
  constexpr int turns[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  a += keys[0];
  b += keys[1];
#pragma unroll
  for (int i = 0; i < 5; ++i) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int turn = turns[i % 2][r];
      a += b;
      b = (b << turn | b >> (32 - turn)) ^ a;
    }
    a += keys[(i + 1) % 3];
    b += keys[(i + 2) % 3] + static_cast<u32>(i) + 1;
  }
  return second ? b : a;
}

// Of logit i among `count`, an even number.
__device__ __forceinline__ float gumbel_noise(int i, int count) {
  const int half = count / 2, first = i < half ? i : i - half;
  const u32 bits = threefry(
      static_cast<u32>(first), static_cast<u32>(first + half), i >= half);
  constexpr float most = 0.99999994f; // the last below one
  const float uniform =
      fminf(static_cast<float>(bits) * 2.3283064365386963e-10f, most);
  return -logf(-logf(uniform));
}

// Takes logit `at` into account, in a place that no other thread has.
__device__ __forceinline__ void consider(float logit, int at, int place) {
  Shared& shared = block();
  float value = logit;
  if (shared.draw.scale >= 0) {
    value = logit * shared.draw.scale + gumbel_noise(at, shared.p.vocab);
  }
  value += 0.0f; // one zero
  const u64 mine =
      static_cast<u64>(ordered(value)) << 32 | static_cast<u32>(~at);
  if (mine > shared.best[place]) {
    shared.best[place] = mine;
  }
}

// The greatest of what lanes have; ~index is in the low word.
__device__ __forceinline__ u64 best_of_lanes(u64 v) {
  const u32 high = static_cast<u32>(v >> 32);
  const u32 top = __reduce_max_sync(~0u, high);
  const u32 low =
      __reduce_max_sync(~0u, high == top ? static_cast<u32>(v) : 0u);
  return static_cast<u64>(top) << 32 | low;
}

// One warp: hands the block's choice on, and waits for all others'. What any
// block did for the token is done and seen afterwards.
__device__ __forceinline__ int join_choices(int lane) {
  Shared& shared = block();
  u64 best = 0;
#pragma unroll
  for (int i = 0; i < kFlush * kRows / 32; ++i) {
    const u64 v = shared.best[lane + 32 * i];
    best = v > best ? v : best;
  }
  best = best_of_lanes(best);
  const u32 tag = shared.tokens + shared.done + 1; // never 0 where none was
  u32* const choices =
      shared.counts + kChoicesAt + (tag & 1) * (4 * kMaxBlocks);
  if (lane == 0) {
    fence_grid();
    store_choice(
        choices + 4 * blockIdx.x,
        make_uint4(
            static_cast<u32>(best >> 32), static_cast<u32>(best), tag, 0));
  }
  __syncwarp();
  // All blocks' are under way at once.
  bool absent;
  int looks = 0;
#pragma unroll 1
  do {
    best = 0;
    absent = false;
    uint4 v[kMaxBlocks / 32];
#pragma unroll
    for (int i = 0; i < kMaxBlocks / 32; ++i) {
      const int of = lane + 32 * i;
      v[i] = of < gridDim.x ? load_choice(choices + 4 * of)
                            : make_uint4(0, 0, tag, 0);
    }
#pragma unroll
    for (int i = 0; i < kMaxBlocks / 32; ++i) {
      const u64 its = static_cast<u64>(v[i].x) << 32 | v[i].y;
      best = its > best ? its : best;
      absent |= v[i].z != tag;
    }
    if (absent) {
      await_word();
    }
  } while (absent && keep_waiting(looks));
  __syncwarp();
  fence_grid();
  best = best_of_lanes(best);
  return static_cast<int>(~static_cast<u32>(best));
}

// All multiplying warps, after the head: the block's state is the next token's.
__device__ __forceinline__ void choose(int tid) {
  Shared& shared = block();
  sync_consumers(); // all have considered theirs
  if (tid < 32) {
    const int token = join_choices(tid);
    if (tid == 0) {
      if (blockIdx.x == 0) {
        shared.answer[shared.done] = token;
      }
      shared.token = min(max(token, 0), shared.p.vocab - 1);
      ++shared.done;
      ++shared.drawn;
      ++shared.position;
      shared.end += shared.p.num_stages;
      shared.exchange = half_of(shared.done);
      shared.retired = half_of(shared.done + 1);
    }
  }
  sync_consumers();
}

} // namespace zmlx_decode
