// SPDX-License-Identifier: MIT
// One token through the decode program: a persistent kernel, one block an SM.
//
// Blocks hand vectors on through the exchange area, with a barrier of the grid
// a stage.

namespace zmlx_decode {

// What the step after this one is given; it does nothing once one has failed.
__device__ __forceinline__ void
tell_next(int gave_up, int position, int capacity, int* next, int* failed) {
  *failed = gave_up;
  next[0] = gave_up;
  next[1] = position + 1;
  next[2] = capacity;
}

__device__ __forceinline__ void consume(int* next, int* failed) {
  Shared& shared = block();
  const Program& p = shared.p;
  Consumer c = {
      static_cast<int>(threadIdx.x),
      static_cast<int>(threadIdx.x >> 5),
      static_cast<int>(threadIdx.x & 31),
      static_cast<int>(threadIdx.x / kRowLanes),
      shared.first_count,
      {0, 0}};
#pragma unroll 1
  for (int own = 0; own < kMaxOwn; ++own) {
    const int row = (blockIdx.x + own * gridDim.x) * kRows + c.row;
    if (row < p.dim && (c.lane & (kRowLanes - 1)) == 0) {
      const float h = element(p.embedding, shared.token, row);
      shared.h[own * kRows + c.row] = h;
      publish(p.embedded_at + row, h);
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
  auto fetch = [&](int i) {
    if (c.warp == kWarps - 1 && c.lane < kStageWords) {
      copy16(
          reinterpret_cast<uint4*>(&shared.stage[i % 3]) + c.lane,
          stage_words(shared, i) + c.lane);
    }
  };
  fetch(0);
  finish_copies();
  if (p.num_stages > 1) {
    fetch(1);
  }
  commit_copies();
  arrive_at_grid(c);
  int slot = 0; // of the stage's record
  u32 weighed = 0; // parity
#pragma unroll 1
  for (int i = 0; i < p.num_stages; ++i) {
    const Stage& s = shared.stage[slot];
    slot = slot == 2 ? 0 : slot + 1;
    if (!has_pieces(s.kind)) {
      if (s.kind == kAttend) {
        attend(c, s);
      } else {
        await_grid(c);
        merge(s);
      }
      if (i + 2 < p.num_stages) {
        fetch(i + 2);
      }
      commit_copies();
      finish_older_copies();
      arrive_at_grid(c);
      continue;
    }
    const Early early = load_early(c, s, blockIdx.x);
    const Work work = work_of(c, s);
    if (s.norm) {
      prepare_normed(c, s, shared.sum_squares[i & 1]);
    } else {
      prepare_plain(c, s);
    }
    sync_consumers();
    if (i + 2 < p.num_stages) {
      fetch(i + 2);
    }
    commit_copies();
    float rms = 1.0f;
    if (s.norm) {
      float squares = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        squares += shared.sum_squares[i & 1][w];
      }
      rms = 1.0f / sqrtf(squares / s.norm_len + s.eps);
    }
    if (work.weighted) {
      wait(&shared.weighed, weighed);
      weighed ^= 1;
    }
    multiply_stage(c, s, work, rms, early);
    finish_older_copies(); // the next stage's record
    if (s.kind != kHead) {
      arrive_at_grid(c);
    }
  }
  if (blockIdx.x == 0 && c.tid == 0) {
    tell_next(shared.failed, shared.position, shared.capacity, next, failed);
  }
}

/// program: a Program, then its stages; caches: addresses; token: this step's;
/// step: whether a step before gave up a wait, this one's position, and the
/// capacity of caches of keys; workspace: exchange_len floats, then the count of
/// arrivals at barriers, a multiple of the number of blocks; next: the step of
/// the token that follows; failed: whether a wait was given up.
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
  if (threadIdx.x == 0) {
    shared.stages =
        reinterpret_cast<const uint4*>(program) + sizeof(Program) / 16;
    shared.caches = caches;
    shared.exchange = workspace;
    shared.count = reinterpret_cast<u64*>(workspace + shared.p.exchange_len);
    // Others may have arrived already, but nobody got past the first barrier.
    const u64 count = *reinterpret_cast<volatile u64*>(shared.count);
    shared.first_count = count - count % gridDim.x;
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
