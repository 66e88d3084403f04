// SPDX-License-Identifier: MIT
// One token through the decode program: a persistent kernel, one block an SM.
//
// Blocks hand vectors on through the exchange area; nobody waits for more than
// the words that it needs.

namespace zmlx_decode {

// What the launch after this one is given; it does nothing once one has failed.
__device__ __forceinline__ void tell_next(
    int gave_up,
    int position,
    int capacity,
    int drawn,
    int* next,
    int* failed) {
  *failed = gave_up;
  next[0] = gave_up;
  next[1] = position;
  next[2] = capacity;
  next[3] = drawn;
}

// What the token's stages need from the start.
__device__ __forceinline__ void begin_token(const Consumer& c) {
  Shared& shared = block();
  const Program& p = shared.p;
  if (shared.draw.count > 0) {
    begin_draw(c.tid);
  }
  if (c.tid < p.half_head) {
    // Half turns, reduced in double: sincosf would bring a stack.
    const float angle =
        static_cast<float>(shared.position) * expf(-c.tid * p.log_theta);
    const double turns = angle * 0.31830988618379067154;
    sincospif(
        static_cast<float>(turns - 2 * rint(turns / 2)),
        &shared.sines[c.tid],
        &shared.cosines[c.tid]);
  }
}

// Instead of the tokens of a launch that gave up a wait, or that came after it.
__device__ __forceinline__ void
tell_no_tokens(int first, int threads, int count, int* chosen) {
  for (int i = first; i < count; i += threads) {
    chosen[i] = -1;
  }
}

// One warp, at the block's end: the last block leaves the next launch its
// start.
__device__ __forceinline__ void
finish(const Consumer& c, int* next, int* failed) {
  Shared& shared = block();
  u32* const start = shared.counts + kStartAt;
  u32 before = 0;
  if (c.lane == 0) {
    if (shared.failed) {
      arrive_at(shared.counts + kGaveUpAt);
    }
    before = arrive_in_order(shared.counts + kEndedAt);
  }
  before = __shfl_sync(~0u, before, 0);
  if (before + 1 != (shared.launches + 1) * gridDim.x) {
    return;
  }
  if (c.lane < kWarps) {
    start[c.lane] = shared.targets[c.lane];
  }
  const bool gave_up = arrivals_at(shared.counts + kGaveUpAt) != 0;
  if (gave_up) {
    tell_no_tokens(c.lane, 32, shared.draw.count, shared.answer);
  }
  if (c.lane == 0) {
    start[kWarps] = shared.launches + 1;
    start[kWarps + 1] = shared.tokens + max(shared.draw.count, 1);
    tell_next(
        gave_up,
        shared.position + (shared.draw.count == 0),
        shared.capacity,
        shared.drawn,
        next,
        failed);
  }
}

__device__ __forceinline__ void run_stage(Consumer& c) {
  Shared& shared = block();
  const Stage& s = shared.stage[c.stage % 3];
  ZMLX_MARK(c, 0);
  if (s.kind == kAttend) {
    meet(c);
    attend(s);
    return;
  }
  if (s.kind == kMerge) {
    meet(c);
    merge(s);
    return;
  }
  if (s.kind == kHead && shared.draw.count > 0) {
    begin_choice(c.tid);
  }
  float* sum_squares = shared.sum_squares[c.stage & 1];
  const Early early = load_early(c, s, blockIdx.x);
  const u32 seen = arrivals_at(count_of(c)); // here, while the rest is read
  const Work work = work_of(c, s);
  if (s.norm) {
    prepare_normed(c, s, sum_squares, seen);
  } else {
    prepare_plain(c, s, work, seen);
  }
  __syncwarp();
  if (work.weight >= 0) {
    wait(&shared.weighed, c.weighed);
    c.weighed ^= 1;
  }
  ZMLX_MARK(c, 2);
  multiply_stage(c, s, work, sum_squares, early);
}

__device__ __forceinline__ void consume(int* next, int* failed) {
  Shared& shared = block();
  Consumer c = {
      static_cast<int>(threadIdx.x),
      static_cast<int>(threadIdx.x >> 5),
      static_cast<int>(threadIdx.x & 31),
      {0, 0},
      -2,
      0,
      0};
  begin_token(c);
  meet(c); // brings the first stage's record, and the second's
  ++c.stage;
  meet(c);
  ++c.stage;
#pragma unroll 1
  while (true) {
#pragma unroll 1
    for (; c.stage < shared.end; ++c.stage) {
      run_stage(c);
    }
    if (shared.draw.count == 0) {
      break;
    }
    choose(c.tid);
    if (shared.done == shared.draw.count) {
      break;
    }
    begin_token(c);
  }
  if (c.warp == 0) {
    finish(c, next, failed);
  }
}

/// program: a Program, then its stages; caches: addresses; token: the first;
/// draw: how to choose those that follow; step: whether a launch before gave up
/// a wait, this one's position, the capacity of caches of keys, and how many
/// tokens have been drawn; workspace: two halves of exchange_len words, absent
/// at first, then kCountsLen of 0. Gives logits, of the last token; chosen:
/// draw.count tokens, of -1 if a wait was given up; next: the step of the
/// launch that follows; failed: whether a wait was given up.
__device__ __forceinline__ void run(
    const u32* program,
    const u64* caches,
    const int* token,
    const u32* draw,
    const int* step,
    float* workspace,
    float* logits,
    int* chosen,
    int* next,
    int* failed) {
  if (step[0] || !finds_shared_memory()) { // all blocks alike
    if (blockIdx.x == 0) {
      const int tid = threadIdx.x, count = static_cast<int>(draw[3]);
      tell_no_tokens(tid, kThreads, count, chosen);
      if (tid == 0) {
        tell_next(1, step[1], step[2], step[3], next, failed);
      }
    }
    return;
  }
  Shared& shared = block();
#pragma unroll 1
  for (int i = threadIdx.x; i < sizeof(Program) / 4; i += kThreads) {
    reinterpret_cast<u32*>(&shared.p)[i] = program[i];
  }
  __syncthreads();
  if (threadIdx.x < kWarps) {
    const u32* start = reinterpret_cast<const u32*>(workspace) +
        2 * shared.p.exchange_len + kStartAt;
    shared.targets[threadIdx.x] = arrivals_at(start + threadIdx.x);
  }
  if (threadIdx.x == 0) {
    shared.stages =
        reinterpret_cast<const uint4*>(program) + sizeof(Program) / 16;
    shared.caches = caches;
    shared.workspace = workspace;
    shared.counts =
        reinterpret_cast<u32*>(workspace) + 2 * shared.p.exchange_len;
    shared.launches = arrivals_at(shared.counts + kStartAt + kWarps);
    shared.tokens = arrivals_at(shared.counts + kStartAt + kWarps + 1);
    shared.exchange = half_of(0);
    shared.retired = half_of(1);
    shared.logits = logits;
    shared.answer = chosen;
    shared.draw = {
        draw[0], draw[1], __uint_as_float(draw[2]), static_cast<int>(draw[3])};
    shared.token = *token;
    shared.position = step[1];
    shared.capacity = step[2];
    shared.drawn = step[3];
    shared.done = 0;
    shared.end = shared.p.num_stages;
    shared.failed = 0;
#pragma unroll 1
    for (int i = 0; i < shared.p.slots; ++i) {
      init_barrier(&shared.full[i], 1);
      init_barrier(&shared.empty[i], kWarps);
    }
    init_barrier(&shared.weighed, 1);
    fence_barriers();
  }
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    set_registers<kProducerRegisters>();
    produce();
  } else {
    set_registers<kRegisters>();
    consume(next, failed);
  }
}

} // namespace zmlx_decode
