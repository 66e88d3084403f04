// SPDX-License-Identifier: MIT
// How vectors go from block to block.

namespace zmlx_decode {

// How tokens are chosen, as the host gives it.
struct Draw {
  u32 seed_low, seed_high;
  float scale; // 1 / temperature; below 0: the most likely token
  int count; // tokens to choose; 0: none, one is only run
};

// The start of a block's shared memory; the ring and the rest follow.
struct Shared {
  u64 full[kMaxSlots], empty[kMaxSlots], weighed;
  alignas(16) Stage stage[3];
  alignas(16) Stage ahead[kProducers][2];
  alignas(16) Program p;
  const uint4* stages;
  const u64* caches; // addresses
  float* workspace;
  float *exchange, *retired; // this token's half, and the next one's
  u32* counts;
  u32 launches, tokens; // how many came before the launch
  u32 targets[kWarps]; // arrivals that a warp has waited for
  float* logits;
  int* answer; // the tokens chosen
  Draw draw;
  int token, position, capacity;
  int drawn; // tokens chosen before, which tells draws apart
  int done; // tokens of the launch
  int end; // what a token's last stage has for its index, plus one
  int failed;
  u32 key[2]; // of the token's draw
  alignas(16) float sum_squares[2][kWarps];
  union {
    float scores[kMaxExperts]; // of the router
    u64 best[kFlush * kRows]; // of the head: choices of threads with logits
  };
  float mixer_rms; // the factor of the norm of the layer's input
  alignas(16) float h[kMaxOwn * kRows]; // the block's own rows of the residual
                                        // stream
  alignas(16) float fresh[kRows];
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

// The half of the exchange area that a launch's token has.
__device__ __forceinline__ float* half_of(int token) {
  const Shared& shared = block();
  return shared.workspace +
      ((shared.tokens + token) & 1) * shared.p.exchange_len;
}

// Vectors go from block to block word by word. Words of the half that the next
// token uses are made absent meanwhile, by whoever will store them then.
constexpr u32 kAbsent = 0xffffffffu; // a NaN that no arithmetic gives

__device__ __forceinline__ bool is_absent(float v) {
  return __float_as_uint(v) == kAbsent;
}
__device__ __forceinline__ void publish(int at, float value) {
  Shared& shared = block();
  store_word(
      shared.exchange + at,
      is_absent(value) ? __uint_as_float(0x7fffffffu) : value);
  store_word(shared.retired + at, __uint_as_float(kAbsent));
}

// Sums over blocks, the same in whatever order terms come: integers, of which
// 2^31 are one, below a count of terms in the top 8 bits. They start absent, at
// -1. A term is cut off at 2^15, so that 128 of them with what each adds fit.
constexpr u64 kTerm = 1ull << 56, kOffset = 1ull << 48; // what each adds
constexpr float kUnits = 0x1p31f, kMostTerm = 0x1p15f;
__device__ __forceinline__ u64* sum_at(float* half, int at, int i) {
  return reinterpret_cast<u64*>(half + at) + i;
}
__device__ __forceinline__ void add_term(u64* sum, float term) {
  term = fminf(fmaxf(term, -kMostTerm), kMostTerm);
  add_long(sum, kTerm + kOffset + static_cast<u64>(to_long(term * kUnits)));
}
__device__ __forceinline__ int terms_of(u64 sum) {
  return static_cast<int>((sum + 1) >> 56);
}
__device__ __forceinline__ float value_of(u64 sum) {
  const u64 added = (kTerm + kOffset) * static_cast<u64>(terms_of(sum));
  return long_to_float(static_cast<long long>(sum + 1 - added)) *
      (1.0f / kUnits);
}

// The residual stream behind an expert's layer, in such sums too, whose terms
// are of shares of the layer and of the stream before it. Up to 61 terms, which
// are counted in the top 6 bits; one that is no number, or too large, spoils
// the sum. They are in units of 2^-26 of about the layer's input.
constexpr u64 kShare = 1ull << 58, kShareOffset = 1ull << 46;
constexpr u64 kSpoilt = 1ull << 52;
constexpr float kShareUnits = 0x1p26f, kMostShare = 0x1p19f;
__device__ __forceinline__ void add_share(u64* sum, float term) {
  const bool fits = fabsf(term) <= kMostShare;
  const u64 value =
      fits ? static_cast<u64>(to_long(term * kShareUnits)) : kSpoilt;
  add_long(sum, kShare + kShareOffset + value);
}
__device__ __forceinline__ int shares_of(u64 sum) {
  return static_cast<int>((sum + 1) >> 58);
}
__device__ __forceinline__ float value_of_shares(u64 sum, int shares) {
  const u64 added = (kShare + kShareOffset) * static_cast<u64>(shares);
  const long long value = static_cast<long long>(sum + 1 - added);
  // In two halves, of which the lower has a sign too: quicker than as one.
  const int low = static_cast<int>(value);
  const int high = static_cast<int>(value >> 32) + (low < 0);
  return high >= static_cast<int>(kSpoilt >> 33)
      ? __uint_as_float(0x7fc00000u)
      : fmaf(static_cast<float>(high), 0x1p32f, static_cast<float>(low));
}
// A power of two near the factor of a norm, and the inverse of it and of units.
__device__ __forceinline__ float share_scale(float rms) {
  return __uint_as_float(__float_as_uint(rms) & 0x7f800000u);
}
__device__ __forceinline__ float inverse_share_scale(float rms) {
  return __uint_as_float(0x7f000000u - (__float_as_uint(rms) & 0x7f800000u)) *
      (1.0f / kShareUnits);
}

// Chunk i of a vector is for warp i % kWarps of every block. Whoever has
// published 8 or 16 rows of one says so.
__device__ __forceinline__ void tell_readers(int row) {
  arrive_at(block().counts + row / kChunk % kWarps * kLine);
}

// Whether to look again after so many looks in vain: for about a second, and
// hardly once the block has given up. There are many copies of this: the kernel
// is slower where more code than the instruction cache holds is gone through.
__device__ __forceinline__ bool keep_waiting(int& looks) {
  if ((++looks & 255) == 0) {
    volatile int& failed = block().failed;
    if (looks > 1 << 21) {
      failed = 1;
    }
    return !failed;
  }
  return true;
}

// Floats as unsigned integers of the same order; NaN lowest.
__device__ __forceinline__ u32 ordered(float v) {
  const u32 bits = __float_as_uint(v);
  return v == v ? (bits >> 31 ? ~bits : bits | 0x80000000u) : 0;
}

// A block's part of a stage: units first, first + step, ... of its share.
struct Part {
  int share, first, step;
};
__device__ __forceinline__ Part part_of(const Stage& s) {
  if (s.shares == 1) {
    return {0, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x)};
  }
  const u32 shares = s.shares, first = blockIdx.x / shares;
  // Blocks more than there are in all shares have nothing.
  return {
      static_cast<int>(blockIdx.x - first * shares),
      static_cast<int>(first < s.sharers ? first : s.units),
      s.sharers};
}

// How many arrivals multiplying warp i waits for before the stage's input.
__device__ __forceinline__ u32 arrivals_before(const Stage& s, int i) {
  const int after = s.x_len / kChunk - i;
  return s.arrivals * ((max(after, 0) + kWarps - 1) / kWarps);
}
// Of the 8 to 32 arrivals of a chunk so many may be missing: words are loaded
// when those that come last are on their way, and looked at again if absent.
constexpr int kMissing = 4;
__device__ __forceinline__ bool is_behind(u32 arrivals, u32 target) {
  return static_cast<int>(arrivals - (target - kMissing)) < 0;
}

__device__ __forceinline__ bool has_absent(const float4& v) {
  return is_absent(v.x) || is_absent(v.y) || is_absent(v.z) || is_absent(v.w);
}
// Four sums at `at`, once all have so many terms.
__device__ __forceinline__ float4
present_sums(const u64* at, int terms, float scale) {
  u64 sums[4];
  bool behind;
  int looks = 0;
#pragma unroll 1
  do {
    load_longs(at, sums[0], sums[1]);
    load_longs(at + 2, sums[2], sums[3]);
    behind = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      behind |= shares_of(sums[i]) < terms;
    }
    if (behind) {
      await_word();
    }
  } while (behind && keep_waiting(looks));
  float v[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] = value_of_shares(sums[i], terms) * scale;
  }
  return make_float4(v[0], v[1], v[2], v[3]);
}
// Makes sure of four words that have been loaded from `at`.
__device__ __forceinline__ void make_present(float4& v, const float* at) {
  int looks = 0;
  while (has_absent(v) && keep_waiting(looks)) {
    await_word();
    v = load_words(at);
  }
}

} // namespace zmlx_decode
