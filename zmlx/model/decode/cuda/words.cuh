// SPDX-License-Identifier: MIT
// Barriers and copies, between blocks and inside one.

// What the host says of the program. Fewer cases need fewer registers.
#ifndef ZMLX_BITS
#define ZMLX_BITS 4 // of every matrix but routers; 0: some 4, some 8
#endif
#ifndef ZMLX_HALF_SCALES
#define ZMLX_HALF_SCALES 0 // scales and biases are float16, not bfloat16
#endif
#ifndef ZMLX_CACHE_TYPE
#define ZMLX_CACHE_TYPE 0 // of the caches: 0 float32, 1 float16, 2 bfloat16
#endif

namespace zmlx_decode {

constexpr int kCacheType = ZMLX_CACHE_TYPE;
constexpr bool kHalfScales = ZMLX_HALF_SCALES;

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
typedef unsigned char u8;

constexpr int kRowLanes = kConsumers / kRows; // threads a row of a tile
constexpr int kPerWarp = kMaxChunks / kWarps;

__device__ __forceinline__ float infinity() {
  return __int_as_float(0x7f800000);
}

// --- what blocks hand on ---

__device__ __forceinline__ float4 load4(const float* at) {
  return __ldcg(reinterpret_cast<const float4*>(at));
}

// One arrival a block; what its threads stored before their own barrier is seen
// by whoever has waited for the count.
__device__ __forceinline__ void arrive_grid(u64* count) {
  asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(count)
               : "memory");
}
// Gives up after about a second: a read of the count takes half a microsecond.
__device__ __forceinline__ bool wait_grid(const u64* count, u64 target) {
#pragma unroll 1
  for (int rounds = 0; rounds < 1 << 21; ++rounds) {
    u64 now;
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];"
                 : "=l"(now)
                 : "l"(count)
                 : "memory");
    if (now >= target) {
      return true;
    }
  }
  return false;
}

// --- barriers and copies inside a block ---

__device__ __forceinline__ u8* shared_memory() {
  extern __shared__ __align__(128) u8 zmlx_memory[];
  return zmlx_memory;
}
__device__ __forceinline__ u32 shared_address(const void* p) {
  return static_cast<u32>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void init_barrier(u64* b, int count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(b)),
               "r"(count)
               : "memory");
}
__device__ __forceinline__ void arrive(u64* b) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(b))
               : "memory");
}
__device__ __forceinline__ void arrive_expecting(u64* b, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(
                   shared_address(b)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void wait(u64* b, u32 parity) {
  asm volatile(
      "{\n.reg .pred p;\nL:\n"
      "mbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n"
      "@p bra D;\nbra L;\nD:\n}" ::"r"(shared_address(b)),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void
copy_in(u32 to, u64 from, u32 bytes, u64* b, u64 policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from),
      "r"(bytes),
      "r"(shared_address(b)),
      "l"(policy)
      : "memory");
}
__device__ __forceinline__ void sync_consumers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

__device__ __forceinline__ uint4 load_shared4(u32 at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(at));
  return v;
}
__device__ __forceinline__ u16 load_shared_half(u32 at) {
  u16 v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(at));
  return v;
}
// Copies 16 bytes without waiting; finish_copies() waits for the thread's own.
__device__ __forceinline__ void copy16(void* to, const void* from) {
  asm volatile(
      "cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)),
      "l"(from)
      : "memory");
}
__device__ __forceinline__ void finish_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}
// Two groups of a thread's copies may be under way; the older one is waited
// for.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
__device__ __forceinline__ void finish_older_copies() {
  asm volatile("cp.async.wait_group 1;" ::: "memory");
}
__device__ __forceinline__ float sum_lanes(float v, int from, int to) {
#pragma unroll
  for (int o = from; o < to; o <<= 1) {
    v += __shfl_xor_sync(~0u, v, o);
  }
  return v;
}

} // namespace zmlx_decode
