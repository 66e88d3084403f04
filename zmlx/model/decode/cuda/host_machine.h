// SPDX-License-Identifier: MIT
// The CUDA kernel's machine on the host, for tests: every thread is a fiber,
// every instruction that threads do together has a plain meaning. In place of
// machine.cuh; one grid at a time, on one thread.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mlx/mlx.h"
#include "zmlx/model/decode/cuda/table.h"
#include "zmlx/model/decode/cuda/words.cuh"

#define __device__
#define __forceinline__ inline
#define __noinline__

namespace zmlx_decode {

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  u32 x, y, z, w;
};
struct alignas(8) uint2 {
  u32 x, y;
};
struct alignas(8) float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) {
  return {x, y, z, w};
}

// --- fibers ---

struct Dim {
  u32 x;
};

struct HostBlock;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack; // not filled: there are thousands
  Dim thread, block;
  HostBlock* of;
  int turn = 0; // of the slots
  u32 slots[2][8]; // what the lane gives the warp's instruction
};

/// Fibers that wait for one another.
struct Meeting {
  std::vector<Fiber*> waiting;
};

struct HostBarrier { // of a block's shared memory
  int count, pending, phase = 0;
  long long bytes = 0;
  Meeting meeting;
};

constexpr int kHostShared = 232448;

struct HostBlock {
  alignas(128) u8 memory[kHostShared];
  std::vector<Fiber> fibers{kThreads};
  Meeting warps[kThreads / 32], consumers, all;
  std::map<const void*, HostBarrier> barriers;
};

struct HostGrid {
  std::vector<std::unique_ptr<HostBlock>> blocks;
  std::deque<Fiber*> ready;
  Meeting others; // fibers that wait for words or counts of other blocks
  bool stored = false; // either, since these were last woken
  Fiber* now = nullptr;
  ucontext_t main;
  std::function<void()> body;
  std::string error; // the first thing found wrong
};

inline HostGrid*& grid_now() {
  static HostGrid* grid = nullptr;
  return grid;
}
inline Fiber& now() {
  return *grid_now()->now;
}

// NOLINTBEGIN: CUDA's own names
#define threadIdx (::zmlx_decode::now().thread)
#define blockIdx (::zmlx_decode::now().block)
#define gridDim \
  (::zmlx_decode::Dim{static_cast<u32>(grid_now()->blocks.size())})
// NOLINTEND

inline void sleep_in(Meeting& meeting) {
  Fiber& self = now();
  meeting.waiting.push_back(&self);
  swapcontext(&self.context, &grid_now()->main);
}
inline void wake(Meeting& meeting) {
  auto& ready = grid_now()->ready;
  ready.insert(ready.end(), meeting.waiting.begin(), meeting.waiting.end());
  meeting.waiting.clear();
}
inline void meet(Meeting& meeting, size_t threads) {
  if (meeting.waiting.size() + 1 == threads) {
    wake(meeting);
  } else {
    sleep_in(meeting);
  }
}

inline void run_fiber() {
  grid_now()->body();
  grid_now()->now = nullptr;
  setcontext(&grid_now()->main);
}

constexpr size_t kStack = 32 * 1024;

inline void start_fiber(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, run_fiber, 0);
}

/// In which order fibers go on that can: 0, the order in which they could; else
/// a seed of any order.
inline u32& schedule() {
  static u32 seed = 0;
  return seed;
}
/// Brings one to the front, and now and then one of few blocks, so that others
/// fall far behind.
inline void choose_next(HostGrid& grid, u32& state) {
  state = state * 1664525u + 1013904223u;
  const size_t count = grid.ready.size();
  const u32 fast = (state >> 4) % grid.blocks.size();
  size_t at = (state >> 8) % count;
  for (size_t i = 0; i < 8 && grid.ready[at]->block.x != fast; ++i) {
    at = (at + 1) % count;
  }
  std::swap(grid.ready.front(), grid.ready[at]);
}

/// Runs body in every thread of `blocks` blocks; throws std::logic_error when
/// all that are left wait, or at something that the machine would not do.
inline void run_grid(int blocks, std::function<void()> body) {
  HostGrid grid;
  grid.body = std::move(body);
  grid_now() = &grid;
  for (int b = 0; b < blocks; ++b) {
    grid.blocks.push_back(std::make_unique<HostBlock>());
    auto& block = *grid.blocks.back();
    // Not a number, for whoever reads what nobody wrote.
    std::memset(block.memory, 0xff, sizeof(block.memory));
    for (int t = 0; t < kThreads; ++t) {
      Fiber& fiber = block.fibers[t];
      fiber.stack.reset(new char[kStack]);
      fiber.thread.x = t;
      fiber.block.x = b;
      fiber.of = &block;
      start_fiber(fiber);
      grid.ready.push_back(&fiber);
    }
  }
  size_t left = grid.ready.size();
  u32 state = schedule();
  while (true) {
    if (grid.ready.empty() && std::exchange(grid.stored, false)) {
      wake(grid.others);
    }
    if (grid.ready.empty()) {
      break;
    }
    if (schedule() != 0) {
      choose_next(grid, state);
    }
    grid.now = grid.ready.front();
    grid.ready.pop_front();
    swapcontext(&grid.main, &grid.now->context);
    left -= grid.now == nullptr;
  }
  grid_now() = nullptr;
  if (!grid.error.empty()) {
    throw std::logic_error(grid.error);
  }
  if (left > 0) {
    throw std::logic_error("threads wait for what does not come");
  }
}

// --- what a warp does together ---

inline Meeting& warp_meeting() {
  return now().of->warps[threadIdx.x / 32];
}
/// Gives `count` words; returns every lane's once all have given theirs.
inline const Fiber* exchange(const u32* words, int count, int& turn) {
  Fiber& self = now();
  turn = self.turn;
  self.turn ^= 1; // slow lanes may still read the last ones
  std::memcpy(self.slots[turn], words, count * sizeof(u32));
  meet(warp_meeting(), 32);
  return &self.of->fibers[self.thread.x / 32 * 32];
}
template <class T>
T lane_value(T value, int lane) {
  static_assert(sizeof(T) == 4);
  u32 word;
  std::memcpy(&word, &value, 4);
  int turn;
  const Fiber* lanes = exchange(&word, 1, turn);
  std::memcpy(&value, lanes[lane].slots[turn], 4);
  return value;
}
template <class T>
T __shfl_xor_sync(u32, T value, int mask) {
  return lane_value(value, (threadIdx.x & 31) ^ mask);
}
template <class T>
T __shfl_sync(u32, T value, int lane) {
  return lane_value(value, lane & 31);
}
template <class T>
T __shfl_down_sync(u32, T value, int by, int width) {
  const int lane = threadIdx.x & 31;
  const bool inside = (lane & (width - 1)) + by < width;
  return lane_value(value, inside ? lane + by : lane);
}
inline u32 reduce_lanes(u32 value, u32 (*better)(u32, u32)) {
  int turn;
  const Fiber* lanes = exchange(&value, 1, turn);
  for (int i = 0; i < 32; ++i) {
    value = better(value, lanes[i].slots[turn][0]);
  }
  return value;
}
inline u32 __reduce_max_sync(u32, u32 value) {
  return reduce_lanes(value, [](u32 a, u32 b) { return a > b ? a : b; });
}
inline int __reduce_min_sync(u32, int value) {
  return reduce_lanes(value, [](u32 a, u32 b) { return a < b ? a : b; });
}
inline u32 __ballot_sync(u32, bool value) {
  const u32 word = value;
  int turn;
  const Fiber* lanes = exchange(&word, 1, turn);
  u32 all = 0;
  for (int i = 0; i < 32; ++i) {
    all |= lanes[i].slots[turn][0] << i;
  }
  return all;
}
inline bool __any_sync(u32, bool value) {
  return __ballot_sync(~0u, value) != 0;
}
inline int __ffs(u32 bits) {
  return __builtin_ffs(static_cast<int>(bits));
}
inline void __syncwarp() {
  meet(warp_meeting(), 32);
}
/// 16 x 32 unsigned bytes times 32 x 8 signed ones, spread over the lanes as
/// the instruction has them.
inline void
multiply(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  const u32 mine[6] = {a0, a1, a2, a3, b0, b1};
  int turn;
  const Fiber* lanes = exchange(mine, 6, turn);
  const int g = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
  for (int i = 0; i < 4; ++i) {
    const int row = i / 2, column = 2 * t + i % 2;
    for (int k = 0; k < 32; ++k) {
      const int of = k % 16 / 4, half = k / 16, shift = k % 4 * 8;
      const u32 a = lanes[g * 4 + of].slots[turn][half * 2 + row] >> shift;
      const u32 b = lanes[column * 4 + of].slots[turn][4 + half] >> shift;
      c[i] += static_cast<u8>(a) * static_cast<signed char>(b);
    }
  }
}

// --- what a block and the grid do together ---

inline void __syncthreads() {
  meet(now().of->all, kThreads);
}
inline void sync_consumers() {
  meet(now().of->consumers, kConsumers);
}
inline u8* shared_memory() {
  return now().of->memory;
}
inline u32 shared_address(const void* p) {
  return static_cast<u32>(static_cast<const u8*>(p) - shared_memory());
}
inline void arrive_at(u32* count) {
  ++*count;
  grid_now()->stored = true;
}
inline u32 arrivals_at(const u32* count) {
  return *count;
}
inline void store_word(float* at, float v) {
  std::memcpy(at, &v, sizeof(v)); // the bits, also of what is no number
  grid_now()->stored = true;
}
inline float load_word(const float* at) {
  return *at;
}
inline float4 load_words(const float* at) {
  return *reinterpret_cast<const float4*>(at);
}
inline void add_long(u64* at, u64 v) {
  *at += v;
  grid_now()->stored = true;
}
inline void store_long(u64* at, u64 v) {
  *at = v;
  grid_now()->stored = true;
}
inline u64 load_long(const u64* at) {
  return *at;
}
inline void load_longs(const u64* at, u64& v, u64& w) {
  v = at[0];
  w = at[1];
}
inline uint4 load_choice(const u32* at) {
  return *reinterpret_cast<const uint4*>(at);
}
inline void store_choice(u32* at, uint4 v) {
  *reinterpret_cast<uint4*>(at) = v;
  grid_now()->stored = true;
}
inline u32 arrive_in_order(u32* count) {
  return (*count)++;
}
inline void fence_grid() {}
inline void await_arrival() {
  sleep_in(grid_now()->others);
}
inline void await_word() {
  sleep_in(grid_now()->others);
}

inline HostBarrier& barrier_at(const u64* b) {
  return now().of->barriers[b];
}
inline void settle(HostBarrier& barrier) {
  if (barrier.pending == 0 && barrier.bytes == 0) {
    barrier.phase ^= 1;
    barrier.pending = barrier.count;
    wake(barrier.meeting);
  }
}
inline void init_barrier(u64* b, int count) {
  auto& barrier = barrier_at(b);
  barrier.count = barrier.pending = count;
}
inline void arrive_expecting(u64* b, u32 bytes) {
  auto& barrier = barrier_at(b);
  barrier.bytes += bytes;
  --barrier.pending;
  settle(barrier);
}
inline void arrive(u64* b) {
  arrive_expecting(b, 0);
}
inline void wait(u64* b, u32 parity) {
  auto& barrier = barrier_at(b);
  while (static_cast<u32>(barrier.phase) == parity) {
    sleep_in(barrier.meeting);
  }
}
inline void copy_in(u32 to, u64 from, u32 bytes, u64* b, u64) {
  if (to % 16 || from % 16 || bytes % 16 || to + bytes > kHostShared) {
    grid_now()->error = "a bulk copy must be of aligned 16 bytes";
    return;
  }
  std::memcpy(shared_memory() + to, reinterpret_cast<const void*>(from), bytes);
  auto& barrier = barrier_at(b);
  barrier.bytes -= bytes;
  settle(barrier);
}
inline void copy16(void* to, const void* from) {
  std::memcpy(to, from, 16);
}
inline void finish_copies() {}
inline void fence_barriers() {}
inline bool finds_shared_memory() {
  return true;
}
template <int>
void set_registers() {}
inline u64 evict_first() {
  return 0;
}

// --- loads and arithmetic ---

template <class T>
T __ldg(const T* at) {
  return *at;
}
template <class T>
T __ldcg(const T* at) {
  return *at;
}
inline uint4 load_shared4(u32 at) {
  uint4 v;
  std::memcpy(&v, shared_memory() + at, sizeof(v));
  return v;
}
inline u16 load_shared_half(u32 at) {
  u16 v;
  std::memcpy(&v, shared_memory() + at, sizeof(v));
  return v;
}
inline u16 load_shared_byte(u32 at) {
  return shared_memory()[at];
}
inline float __uint_as_float(u32 bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline u32 __float_as_uint(float f) {
  u32 bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}
inline float __int_as_float(int bits) {
  return __uint_as_float(static_cast<u32>(bits));
}
inline int __float2int_rn(float f) {
  return static_cast<int>(std::lrintf(f));
}
inline u32 __byte_perm(u32 a, u32 b, u32 selector) {
  const u64 both = static_cast<u64>(b) << 32 | a;
  u32 out = 0;
  for (int i = 0; i < 4; ++i) {
    const int byte = selector >> (4 * i) & 7;
    out |= static_cast<u32>(both >> (8 * byte) & 0xff) << (8 * i);
  }
  return out;
}
inline long long to_long(float v) {
  return std::llrintf(v);
}
inline float long_to_float(long long v) {
  return static_cast<float>(v);
}
inline float __expf(float x) {
  return std::exp(x);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline void sincospif(float x, float* sine, float* cosine) {
  const double angle = 3.14159265358979323846 * x;
  *sine = static_cast<float>(std::sin(angle));
  *cosine = static_cast<float>(std::cos(angle));
}
inline float inverse_root(float v) {
  return 1.0f / std::sqrt(v);
}
inline float infinity() {
  return INFINITY;
}
inline int min(int a, int b) {
  return std::min(a, b);
}
inline int max(int a, int b) {
  return std::max(a, b);
}
inline float from_float16(u16 bits) {
  mlx::core::float16_t h;
  std::memcpy(&h, &bits, 2);
  return static_cast<float>(h);
}
inline u16 to_float16(float v) {
  const auto h = static_cast<mlx::core::float16_t>(v);
  u16 bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
inline u16 to_bfloat16(float v) {
  const u32 bits = __float_as_uint(v);
  return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

} // namespace zmlx_decode
