// SPDX-License-Identifier: MIT
// One token through the decode program: a persistent kernel, one block an SM.
//
// Blocks hand vectors on through the exchange area; nobody waits for more than
// the words that it needs.

namespace zmlx_decode {

// What the step after this one is given; it does nothing once one has failed.
__device__ __forceinline__ void
tell_next(int gave_up, int position, int capacity, int* next, int* failed) {
  *failed = gave_up;
  next[0] = gave_up;
  next[1] = position + 1;
  next[2] = capacity;
}

// The token's row of the embedding, each block its own rows.
__device__ __forceinline__ void embed(const Consumer& c) {
  Shared& shared = block();
  const Program& p = shared.p;
#pragma unroll 1
  for (int own = 0; own < kMaxOwn; ++own) {
    const int first = (blockIdx.x + own * gridDim.x) * kRows;
    const int row = first + c.warp;
    if (row < p.dim && (c.lane & (kRowLanes - 1)) == 0) {
      const float h = element(p.embedding, shared.token, row);
      shared.h[own * kRows + c.warp] = h;
      publish(p.embedded_at + row, h);
    }
    if (first < p.dim && c.tid == 0) {
      tell_readers(first);
    }
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

// Leaves the next launch its start, once all blocks have read theirs.
__device__ __forceinline__ void begin_next(const Consumer& c) {
  Shared& shared = block();
  u32* const start = shared.counts + kWarps * kLine;
  const u32 target = (shared.launch + 1) * gridDim.x;
  int looks = 0;
  while (static_cast<int>(arrivals_at(start + kLine) - target) < 0 &&
         keep_waiting(looks)) {
    await_arrival();
  }
  if (c.lane == 0) {
    start[c.warp] = shared.targets[c.warp];
    start[kWarps] = shared.launch + 1;
  }
}

__device__ __noinline__ void consume(int* next, int* failed) {
  Shared& shared = block();
  const Program& p = shared.p;
  Consumer c = {
      static_cast<int>(threadIdx.x),
      static_cast<int>(threadIdx.x >> 5),
      static_cast<int>(threadIdx.x & 31),
      {0, 0},
      -2,
      0,
      0};
  embed(c);
  meet(c); // brings the first stage's record, and the second's
  ++c.stage;
  meet(c);
  if (c.tid == 0) {
    arrive_at(shared.counts + (kWarps + 1) * kLine);
  }
#pragma unroll 1
  for (c.stage = 0; c.stage < p.num_stages; ++c.stage) {
    const Stage& s = shared.stage[c.stage % 3];
    ZMLX_MARK(c, 0);
    if (s.kind == kAttend) {
      meet(c);
      attend(s);
      continue;
    }
    if (s.kind == kMerge) {
      meet(c);
      merge(s);
      continue;
    }
    float* sum_squares = shared.sum_squares[c.stage & 1];
    const Early early = load_early(c, s, blockIdx.x);
    const Work work = work_of(s);
    if (s.norm) {
      prepare_normed(c, s, sum_squares);
    } else {
      prepare_plain(c, s);
    }
    __syncwarp();
    if (work.weighted) {
      wait(&shared.weighed, c.weighed);
      c.weighed ^= 1;
    }
    ZMLX_MARK(c, 2);
    multiply_stage(c, s, work, sum_squares, early);
  }
  if (blockIdx.x == 0) {
    begin_next(c);
    if (c.tid == 0) {
      tell_next(shared.failed, shared.position, shared.capacity, next, failed);
    }
  }
}

/// program: a Program, then its stages; caches: addresses; token: this step's;
/// step: whether a step before gave up a wait, this one's position, and the
/// capacity of caches of keys; workspace: two halves of exchange_len words,
/// absent at first, then kCountsLen of 0; next: the step of the token that
/// follows; failed: whether a wait was given up.
__device__ __forceinline__ void run(
    const u32* program,
    const u64* caches,
    const int* token,
    const int* step,
    float* workspace,
    float* logits,
    int* next,
    int* failed) {
  if (step[0]) { // all blocks alike
    if (blockIdx.x == 0 && threadIdx.x == 0) {
      tell_next(1, step[1], step[2], next, failed);
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
        2 * shared.p.exchange_len + kWarps * kLine;
    shared.targets[threadIdx.x] = arrivals_at(start + threadIdx.x);
  }
  if (threadIdx.x == 0) {
    shared.stages =
        reinterpret_cast<const uint4*>(program) + sizeof(Program) / 16;
    shared.caches = caches;
    shared.counts = reinterpret_cast<u32*>(workspace) + 2 * shared.p.exchange_len;
    shared.launch = arrivals_at(shared.counts + kWarps * kLine + kWarps);
    const int half = (shared.launch & 1) * shared.p.exchange_len;
    shared.exchange = workspace + half;
    shared.retired = workspace + (shared.p.exchange_len - half);
    shared.logits = logits;
    shared.token = *token;
    shared.position = step[1];
    shared.capacity = step[2];
    shared.failed = 0;
#pragma unroll 1
    for (int i = 0; i < shared.p.slots; ++i) {
      init_barrier(&shared.full[i], 1);
      init_barrier(&shared.empty[i], kWarps);
    }
    init_barrier(&shared.routed, kWarps);
    init_barrier(&shared.weighed, 1);
    fence_barriers();
  }
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    produce();
  } else {
    consume(next, failed);
  }
}

} // namespace zmlx_decode
