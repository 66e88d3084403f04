// SPDX-License-Identifier: MIT
// Words that only the machine has: barriers and copies, between blocks and
// inside one, the matrix instruction, and conversions. host_machine.h gives
// each a plain meaning.

namespace zmlx_decode {

__device__ __forceinline__ float infinity() {
  return __int_as_float(0x7f800000);
}

// Words between blocks. None of these waits for another: a word that is handed
// on is its own flag, and a count only says when to look.
__device__ __forceinline__ void arrive_at(u32* count) {
  asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(count)
               : "memory");
}
__device__ __forceinline__ u32 arrivals_at(const u32* count) {
  u32 now;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];"
               : "=r"(now)
               : "l"(count)
               : "memory");
  return now;
}
__device__ __forceinline__ void store_word(float* at, float v) {
  asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(at), "f"(v)
               : "memory");
}
__device__ __forceinline__ float load_word(const float* at) {
  float v;
  asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];"
               : "=f"(v)
               : "l"(at)
               : "memory");
  return v;
}
__device__ __forceinline__ float4 load_words(const float* at) {
  float4 v;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(at)
               : "memory");
  return v;
}
__device__ __forceinline__ void add_long(u64* at, u64 v) {
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(at), "l"(v)
               : "memory");
}
__device__ __forceinline__ void store_long(u64* at, u64 v) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(v)
               : "memory");
}
__device__ __forceinline__ u64 load_long(const u64* at) {
  u64 v;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];"
               : "=l"(v)
               : "l"(at)
               : "memory");
  return v;
}
__device__ __forceinline__ void load_longs(const u64* at, u64& v, u64& w) {
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0,%1}, [%2];"
               : "=l"(v), "=l"(w)
               : "l"(at)
               : "memory");
}
__device__ __forceinline__ uint4 load_choice(const u32* at) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at)
               : "memory");
  return v;
}
__device__ __forceinline__ void store_choice(u32* at, uint4 v) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(at),
               "r"(v.x),
               "r"(v.y),
               "r"(v.z),
               "r"(v.w)
               : "memory");
}
// Counts one more, and says how many there were; orders all that the block and
// those that counted before it have stored.
__device__ __forceinline__ u32 arrive_in_order(u32* count) {
  u32 before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
               : "=r"(before)
               : "l"(count)
               : "memory");
  return before;
}
__device__ __forceinline__ void fence_grid() {
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
}
// Where the host's form lets others run.
__device__ __forceinline__ void await_arrival() {}
__device__ __forceinline__ void await_word() {}

// --- barriers and copies inside a block ---

// At an address that is known when the text is compiled: no register holds it.
__device__ __forceinline__ u8* shared_memory() {
  return reinterpret_cast<u8*>(__cvta_shared_to_generic(ZMLX_SHARED_AT));
}
__device__ __forceinline__ u32 shared_address(const void* p) {
  return static_cast<u32>(__cvta_generic_to_shared(p));
}
// Whether it is there.
__device__ __forceinline__ bool finds_shared_memory() {
  extern __shared__ __align__(128) u8 zmlx_memory[];
  return shared_address(zmlx_memory) == ZMLX_SHARED_AT;
}
// Tells the compiler how many registers a thread has from here on. Without, it
// keeps values on the stack that there are registers for, since multiplying and
// producing warps share one function.
template <int count>
__device__ __forceinline__ void set_registers() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(__CUDA_ARCH_SPECIFIC__)
  if (count < kRegisters) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
  }
#endif
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
__device__ __forceinline__ u16 load_shared_byte(u32 at) {
  u16 v;
  asm volatile("ld.shared.u8 %0, [%1];" : "=h"(v) : "r"(at));
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
__device__ __forceinline__ void fence_barriers() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// For copies of what will not be read again soon.
__device__ __forceinline__ u64 evict_first() {
  u64 policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// --- arithmetic ---

__device__ __forceinline__ void
multiply(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ long long to_long(float v) {
  return __float2ll_rn(v);
}
__device__ __forceinline__ float long_to_float(long long v) {
  return __ll2float_rn(v);
}
__device__ __forceinline__ float inverse_root(float v) {
  float r;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r * fmaf(-0.5f * v * r, r, 1.5f); // Newton: the last bit but one
}
__device__ __forceinline__ float from_float16(u16 bits) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(bits));
  return f;
}
__device__ __forceinline__ u16 to_float16(float v) {
  u16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
  return h;
}
__device__ __forceinline__ u16 to_bfloat16(float v) {
  u16 h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v));
  return h;
}

} // namespace zmlx_decode
