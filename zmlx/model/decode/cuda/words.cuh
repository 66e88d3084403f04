// SPDX-License-Identifier: MIT
// Types and settings that all of the kernel shares.

// What the host says of the program. Fewer cases need fewer registers.
#ifndef ZMLX_BITS
#define ZMLX_BITS 4 // of every matrix but routers; 0: some 4, some 8
#endif
#ifndef ZMLX_SCHEME
#define ZMLX_SCHEME 0 // of every matrix but routers; -1: some this, some that
#endif
#ifndef ZMLX_HALF_SCALES
#define ZMLX_HALF_SCALES 0 // scales and biases are float16, not bfloat16
#endif
#ifndef ZMLX_LANE_EXPERTS
#define ZMLX_LANE_EXPERTS 0 // of each router's: 1, 4; 0: some this, some that
#endif
#ifndef ZMLX_CACHE_TYPE
#define ZMLX_CACHE_TYPE 0 // of the caches: 0 float32, 1 float16, 2 bfloat16
#endif
#ifndef ZMLX_SHARED_AT
#define ZMLX_SHARED_AT 1024 // the address of a block's shared memory
#endif

// For a driver that measures: consumer c is at point 0 to 3 of its stage.
#ifndef ZMLX_MARK
#define ZMLX_MARK(c, point)
#endif

namespace zmlx_decode {

constexpr int kCacheType = ZMLX_CACHE_TYPE;
constexpr bool kHalfScales = ZMLX_HALF_SCALES;
constexpr int kLaneExperts = ZMLX_LANE_EXPERTS;

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
typedef unsigned char u8;

constexpr int kRegisters = 96; // of a thread: the most that kThreads can have
constexpr int kProducerRegisters = 88;
constexpr int kRowLanes = kConsumers / kRows; // threads a row of a tile

} // namespace zmlx_decode
