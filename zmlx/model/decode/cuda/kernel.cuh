// SPDX-License-Identifier: MIT
// One token through the decode program: a persistent kernel, one block an SM.
//
// Blocks hand vectors on through the exchange area, with a barrier of the grid a
// stage.

namespace zmlx_decode {

__device__ __forceinline__ bool
better(float value, int at, float best, int best_at) {
  return value > best || (value == best && at < best_at);
}

// The best of a warp, in every lane.
__device__ __forceinline__ void best_of_warp(float& best, int& best_at) {
#pragma unroll 1
  for (int o = 16; o; o >>= 1) {
    const float other = __shfl_xor_sync(~0u, best, o);
    const int other_at = __shfl_xor_sync(~0u, best_at, o);
    if (better(other, other_at, best, best_at)) {
      best = other, best_at = other_at;
    }
  }
}

// The best of the block, then of all blocks; warp 0 of block 0 has the answer.
__device__ __forceinline__ int choose(Consumer& c, int at) {
  Shared& shared = block();
  best_of_warp(c.best, c.best_at);
  if (c.lane == 0) {
    shared.best[c.warp] = c.best;
    shared.best_at[c.warp] = c.best_at;
  }
  sync_consumers();
  float best = c.lane < kWarps ? shared.best[c.lane] : -INFINITY;
  int best_at = c.lane < kWarps ? shared.best_at[c.lane] : 0x7fffffff;
  if (c.warp == 0) {
    best_of_warp(best, best_at);
    if (c.lane == 0) {
      publish(at + 2 * blockIdx.x, best);
      publish(at + 2 * blockIdx.x + 1, __int_as_float(best_at));
    }
  }
  arrive_at_grid(c);
  if (blockIdx.x != 0) {
    return 0;
  }
  await_grid(c);
  best = -INFINITY, best_at = 0x7fffffff;
  const float* from = shared.exchange + at;
#pragma unroll 1
  for (int i = c.lane; i < gridDim.x; i += 32) {
    const float other = __ldcg(from + 2 * i);
    const int other_at = __float_as_int(__ldcg(from + 2 * i + 1));
    if (better(other, other_at, best, best_at)) {
      best = other, best_at = other_at;
    }
  }
  best_of_warp(best, best_at);
  return best_at == 0x7fffffff ? 0 : best_at;
}

#ifdef ZMLX_PROFILE
#define ZMLX_MARK(what)                                                  \
  if (c.tid == 0) {                                                      \
    profile[(static_cast<u64>(blockIdx.x) * p.num_stages + i) * 4 +      \
            what] = clock64();                                           \
  }
#else
#define ZMLX_MARK(what)
#endif

__device__ __forceinline__ void consume(int* result, long long* profile) {
  Shared& shared = block();
  const Program& p = shared.p;
  Consumer c = {
      static_cast<int>(threadIdx.x), static_cast<int>(threadIdx.x >> 5),
      static_cast<int>(threadIdx.x & 31), static_cast<int>(threadIdx.x / kRowLanes),
      shared.step.count, {0, 0}, -INFINITY, 0x7fffffff};
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
    const float angle = static_cast<float>(shared.step.position) *
        expf(-c.tid * p.log_theta);
    const double turns = angle * 0.31830988618379067154;
    sincospif(
        static_cast<float>(turns - 2 * rint(turns / 2)), &shared.sines[c.tid],
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
    ZMLX_MARK(0)
    if (!has_pieces(s.kind)) {
      if (s.kind == kAttend) {
        attend(c, s);
      } else {
        await_grid(c);
        merge(s);
      }
      ZMLX_MARK(1)
      ZMLX_MARK(2)
      if (i + 2 < p.num_stages) {
        fetch(i + 2);
      }
      commit_copies();
      finish_older_copies();
      arrive_at_grid(c);
      ZMLX_MARK(3)
      continue;
    }
    const Early early = load_early(c, s, blockIdx.x);
    const Work work = work_of(c, s);
    if (s.norm) {
      prepare_normed(c, s, shared.sum_squares[i & 1]);
    } else {
      prepare_plain(c, s);
    }
    ZMLX_MARK(1)
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
    ZMLX_MARK(2)
    if (work.weighted) {
      wait(&shared.weighed, weighed);
      weighed ^= 1;
    }
    multiply_stage(c, s, work, rms, early);
    finish_older_copies(); // the next stage's record
    if (s.kind != kHead) {
      arrive_at_grid(c);
    }
    ZMLX_MARK(3)
  }
  const int chosen = choose(c, p.exchange_len - 2 * gridDim.x);
  if (c.tid == 0) {
    if (blockIdx.x == 0) {
      result[0] = chosen;
    }
    if (shared.failed) {
      result[1] = 1;
    }
  }
}

/// exchange: exchange_len floats, then the count of arrivals at barriers; last: the token that the last step chose; result: the
/// token chosen, then 1 if a wait was given up.
__device__ __forceinline__ void run(
    const Program* program,
    const Step* step,
    float* exchange,
    const int* last,
    float* logits,
    int* result,
    long long* profile) {
  Shared& shared = block();
#pragma unroll 1
  for (int i = threadIdx.x; i < sizeof(Program) / 4; i += kThreads) {
    reinterpret_cast<u32*>(&shared.p)[i] =
        reinterpret_cast<const u32*>(program)[i];
  }
#pragma unroll 1
  for (int i = threadIdx.x; i < sizeof(Step) / 4; i += kThreads) {
    reinterpret_cast<u32*>(&shared.step)[i] =
        reinterpret_cast<const u32*>(step)[i];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    shared.exchange = exchange;
    shared.count =
        reinterpret_cast<u32*>(exchange + shared.p.exchange_len);
    shared.logits = logits;
    shared.token = shared.step.token >= 0 ? shared.step.token : *last;
    shared.failed = 0;
#pragma unroll 1
    for (int i = 0; i < shared.p.slots; ++i) {
      init_barrier(&shared.full[i], 1);
      init_barrier(&shared.empty[i], kWarps);
    }
    init_barrier(&shared.routed, kWarps);
    init_barrier(&shared.weighed, 1);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    produce();
  } else {
    consume(result, profile);
  }
}

} // namespace zmlx_decode
