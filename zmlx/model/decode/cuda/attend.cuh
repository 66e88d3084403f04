// SPDX-License-Identifier: MIT
// Attention over the cache, split over the context, and the join of the splits.

namespace zmlx_decode {

constexpr int kCacheBytes = kCacheType == 0 ? 4 : 2;

// Four values of a cached row, in shared memory.
__device__ __forceinline__ float4 load_cached4(const u8* row, int at) {
  if (kCacheType == 0) {
    return *reinterpret_cast<const float4*>(row + at * 4);
  }
  const uint2 v = *reinterpret_cast<const uint2*>(row + at * 2);
  constexpr bool half = kCacheType == 1;
  return make_float4(
      half_to_float(static_cast<u16>(v.x), half),
      half_to_float(static_cast<u16>(v.x >> 16), half),
      half_to_float(static_cast<u16>(v.y), half),
      half_to_float(static_cast<u16>(v.y >> 16), half));
}

// Two.
__device__ __forceinline__ float2 load_cached2(const u8* row, int at) {
  if (kCacheType == 0) {
    return *reinterpret_cast<const float2*>(row + at * 4);
  }
  const u32 v = *reinterpret_cast<const u32*>(row + at * 2);
  constexpr bool half = kCacheType == 1;
  return make_float2(
      half_to_float(static_cast<u16>(v), half),
      half_to_float(static_cast<u16>(v >> 16), half));
}

// One warp: a head's norm (if any) and rotation. Lane i has the pairs i, i
// + 32.
__device__ __forceinline__ void norm_and_rotate(
    const Stage& s,
    const float* from,
    u64 norm,
    float scale,
    float* to) {
  Shared& shared = block();
  const int half = s.head_dim / 2, lane = threadIdx.x & 31;
  float x[2] = {}, y[2] = {}, squares = 0;
  float by[2][2] = {{1.0f, 1.0f}, {1.0f, 1.0f}}; // the norm's, there first
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = lane + r * 32;
    if (norm && i < half) {
      by[r][0] = __ldg(reinterpret_cast<const float*>(norm) + i);
      by[r][1] = __ldg(reinterpret_cast<const float*>(norm) + i + half);
    }
  }
  bool absent = false;
  int looks = 0;
#pragma unroll 1
  do {
    if (absent) {
      await_word();
    }
    absent = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (lane + r * 32 < half) {
        x[r] = load_word(from + lane + r * 32);
        y[r] = load_word(from + lane + r * 32 + half);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      absent |= is_absent(x[r]) || is_absent(y[r]);
    }
  } while (absent && keep_waiting(looks));
  __syncwarp();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    squares += x[r] * x[r] + y[r] * y[r];
  }
  squares = sum_lanes(squares, 1, 32);
  const float rms = scale *
      (norm ? inverse_root(__fdividef(squares, s.head_dim) + s.eps) : 1.0f);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = lane + r * 32;
    if (i < half) {
      const float a = x[r] * rms * by[r][0], b = y[r] * rms * by[r][1];
      to[i] = a * shared.cosines[i] - b * shared.sines[i];
      to[i + half] = a * shared.sines[i] + b * shared.cosines[i];
    }
  }
}

// How many positions a split of the context has; the last may have fewer.
constexpr int kLeastSplit = 16;
__device__ __forceinline__ int split_len(const Stage& s, int seen) {
  const int splits = min(s.splits, (seen + kLeastSplit - 1) / kLeastSplit);
  return (seen + splits - 1) / splits;
}
__device__ __forceinline__ int splits_of(int seen, int len) {
  return (seen + len - 1) / len;
}

// Copies positions begin .. end - 1 of one key head to rows of shared memory.
__device__ __forceinline__ void copy_rows(
    u8* to,
    int row_bytes,
    u64 cache,
    u32 head,
    int dim,
    int begin,
    int end) {
  const int pieces = dim * kCacheBytes / 16; // a power of two
#pragma unroll 1
  for (int i = threadIdx.x; i < (end - begin) * pieces; i += kConsumers) {
    const int row = i / pieces, at = i & (pieces - 1);
    copy16(
        to + row * row_bytes + at * 16,
        reinterpret_cast<const u8*>(cache) +
            static_cast<u64>(head + (begin + row) * dim) * kCacheBytes +
            at * 16);
  }
}

// One key head's share of the context for its query heads, unnormalised: (head,
// head_dim + 4) floats an item, the last with maximum and sum. The share is
// taken in chunks of s.chunk_rows positions.
__device__ __noinline__ void attend(const Stage& s) {
  Shared& shared = block();
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31;
  const int dim = s.head_dim, group = s.heads / s.kv_heads;
  const int seen = shared.position + 1, share = split_len(s, seen);
  const int kv = blockIdx.x % s.kv_heads, split = blockIdx.x / s.kv_heads;
  const int record = dim + 4;
  const int out = s.out_at + (kv * s.splits + split) * group * record;
  if (split >= splits_of(seen, share)) {
    // Nothing to publish, but what a longer context left must go.
#pragma unroll 1
    for (int i = tid; i < group * record && split < s.splits; i += kConsumers) {
      store_word(shared.retired + out + i, __uint_as_float(kAbsent));
    }
    return;
  }
  const int rows = s.chunk_rows;
  const int begin = split * share, end = min(seen, begin + share);
  const bool newest = end == seen;
  const int row_bytes = dim * kCacheBytes + 16;
  // Four more floats a row: rows start in different banks.
  const int query_len = dim + 4;
  float* queries = floats_at(shared.p.digits_at); // (group, query_len)
  float* key = queries + group * query_len;
  float* value = key + dim;
  float* scores = value + dim; // (group, rows)
  float* stats = scores + group * rows; // (group, 4): maximum, sum, fade
  u8* keys = reinterpret_cast<u8*>(stats + group * 4);
  u8* values = keys + rows * row_bytes;
  const float* in = shared.exchange + s.x_at;
  const u32 head = kv * shared.capacity * dim;
  const u64 key_cache = shared.caches[s.cache];
  const u64 value_cache = shared.caches[s.cache + 1];
  int stop = min(begin + rows, end);
  // Copied while queries are waited for.
  copy_rows(keys, row_bytes, key_cache, head, dim, begin, min(stop, seen - 1));
  copy_rows(
      values, row_bytes, value_cache, head, dim, begin, min(stop, seen - 1));
  if (newest && warp == kWarps - 1) {
    norm_and_rotate(s, in + s.rows_a + kv * dim, s.key_norm, 1.0f, key);
#pragma unroll 1
    for (int i = lane; i < dim; i += 32) {
      key[i] = store_cached(key_cache, head + (seen - 1) * dim + i, key[i]);
    }
  } else if (newest && warp == kWarps - 2 && lane * 4 < dim) {
    const float* from = in + s.rows_a + s.rows_b + kv * dim + lane * 4;
    float4 v = load_words(from);
    make_present(v, from);
    const float its[4] = {v.x, v.y, v.z, v.w};
    const u32 at = head + (seen - 1) * dim + lane * 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      value[lane * 4 + i] = store_cached(value_cache, at + i, its[i]);
    }
  }
  __syncwarp(); // barriers are of whole warps
  const float scale = 1.0f / sqrtf(static_cast<float>(dim));
#pragma unroll 1
  for (int h = warp; h < group; h += kWarps) {
    norm_and_rotate(
        s,
        in + (kv * group + h) * dim,
        s.query_norm,
        scale,
        queries + h * query_len);
    if (lane == 0) {
      stats[h * 4] = -infinity();
      stats[h * 4 + 1] = 0;
    }
  }
  // Two channels a thread, and as many threads for them as there are.
  static_assert(kMaxAttended <= 2 * kConsumers);
  const int pairs = group * dim / 2, sharers = kConsumers / pairs;
  const int sharer = tid / pairs, pair = tid - sharer * pairs;
  const int h = 2 * pair / dim, d = 2 * pair & (dim - 1);
  float2 y = make_float2(0.0f, 0.0f);
#pragma unroll 1
  for (int first = begin; first < end; first = stop) {
    if (first > begin) {
      stop = min(first + rows, end);
      sync_consumers();
      copy_rows(
          keys, row_bytes, key_cache, head, dim, first, min(stop, seen - 1));
      copy_rows(
          values,
          row_bytes,
          value_cache,
          head,
          dim,
          first,
          min(stop, seen - 1));
    }
    finish_copies();
    sync_consumers();
    if (stop == seen) {
      const u64 row = static_cast<u64>((stop - 1 - first) * row_bytes);
      if (tid < dim) {
        store_cached(reinterpret_cast<u64>(keys) + row, tid, key[tid]);
      } else if (tid < 2 * dim) {
        const int i = tid - dim;
        store_cached(reinterpret_cast<u64>(values) + row, i, value[i]);
      }
      sync_consumers();
    }
    const int count = stop - first;
    // Two lanes a product, eight floats of sixteen each.
#pragma unroll 1
    for (int i = tid; i - lane < count * group * 2; i += kConsumers) {
      const int j = i / 2 / group, h = i / 2 - j * group;
      const bool works = j < count;
      const u8* k = keys + j * row_bytes;
      const float* q = queries + h * query_len;
      float dot = 0;
      if (works) {
#pragma unroll 4
        for (int d = (i & 1) * 8; d < dim; d += 16) {
          const float4 a = load_cached4(k, d), c = load_cached4(k, d + 4);
          const float4 b = *reinterpret_cast<const float4*>(q + d);
          const float4 e = *reinterpret_cast<const float4*>(q + d + 4);
          dot += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
          dot += c.x * e.x + c.y * e.y + c.z * e.z + c.w * e.w;
        }
      }
      __syncwarp();
      dot = sum_lanes(dot, 1, 2);
      if (works && (i & 1) == 0) {
        scores[h * rows + j] = dot;
      }
    }
    sync_consumers();
#pragma unroll 1
    for (int h = warp; h < group; h += kWarps) {
      float* of = scores + h * rows; // at most two a lane
      const float a = lane < count ? of[lane] : -infinity();
      const float b = lane + 32 < count ? of[lane + 32] : -infinity();
      float top = fmaxf(a, b);
#pragma unroll
      for (int o = 16; o; o >>= 1) {
        top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
      }
      const float before = stats[h * 4];
      top = fmaxf(top, before);
      const float u = expf(a - top), v = expf(b - top);
      const float sum = sum_lanes(u + v, 1, 32);
      if (lane < count) {
        of[lane] = u;
      }
      if (lane + 32 < count) {
        of[lane + 32] = v;
      }
      if (lane == 0) {
        const float fade = expf(before - top);
        stats[h * 4] = top;
        stats[h * 4 + 1] = stats[h * 4 + 1] * fade + sum;
        stats[h * 4 + 2] = fade;
      }
    }
    sync_consumers();
    if (sharer < sharers) {
      const float* weights = scores + h * rows;
      const float fade = stats[h * 4 + 2];
      y.x *= fade;
      y.y *= fade;
#pragma unroll 4
      for (int j = sharer; j < count; j += sharers) {
        const float2 v = load_cached2(values + j * row_bytes, d);
        y.x = fmaf(weights[j], v.x, y.x);
        y.y = fmaf(weights[j], v.y, y.y);
      }
    }
  }
  // Keys are not read any more.
  float2* parts = reinterpret_cast<float2*>(keys) + pair;
  if (sharer > 0 && sharer < sharers) {
    parts[(sharer - 1) * pairs] = y;
  }
  if (sharers > 1) {
    sync_consumers();
  }
  if (sharer == 0) {
#pragma unroll 1
    for (int i = 0; i + 1 < sharers; ++i) {
      y.x += parts[i * pairs].x;
      y.y += parts[i * pairs].y;
    }
    publish(out + h * record + d, y.x);
    publish(out + h * record + d + 1, y.y);
    if (d == 0) {
      publish(out + h * record + dim, stats[h * 4]);
      publish(out + h * record + dim + 1, stats[h * 4 + 1]);
    }
  }
}

// A split's weight in the sum of all, and that sum's inverse times it: lane i
// has split i's maximum, -infinity where there is none, and sum.
__device__ __forceinline__ float weight_of_split(float top, float sum) {
  float most = top;
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
  }
  const float weight = expf(top - most);
  return weight / sum_lanes(weight * sum, 1, 32);
}

// Joins the splits as they come: 16 channels a unit, a unit a warp, of which
// each half takes every other split.
__device__ __noinline__ void merge(const Stage& s) {
  Shared& shared = block();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, half = lane >> 4;
  const int dim = s.head_dim, record = dim + 4;
  const int group = s.heads / s.kv_heads, stride = group * record;
  const int seen = shared.position + 1;
  const int splits = splits_of(seen, split_len(s, seen));
  constexpr int loads = kMaxSplits / 2;
#pragma unroll 1
  for (int u = blockIdx.x + warp * gridDim.x; u < s.units;
       u += kWarps * gridDim.x) {
    const int channel = u * 16 + (lane & 15), head = channel / dim;
    const float* from = shared.exchange + s.x_at +
        (head / group * s.splits * group + head % group) * record;
    const float* at = from + half * stride + (channel & (dim - 1));
    const float* stats = from + dim + lane * stride;
    float v[loads], top = -infinity(), sum = 0;
    bool absent = false;
    int looks = 0;
#pragma unroll 1
    do {
      if (absent) {
        await_word();
      }
#pragma unroll
      for (int i = 0; i < loads; ++i) {
        v[i] = 2 * i + half < splits ? load_word(at + 2 * i * stride) : 0.0f;
      }
      if (lane < splits) {
        top = load_word(stats);
        sum = load_word(stats + 1);
      }
      absent = is_absent(top) || is_absent(sum);
#pragma unroll
      for (int i = 0; i < loads; ++i) {
        absent |= is_absent(v[i]);
      }
    } while (absent && keep_waiting(looks));
    __syncwarp();
    const float weight = weight_of_split(top, sum);
    float y = 0;
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      y = fmaf(__shfl_sync(~0u, weight, 2 * i + half), v[i], y);
    }
    y = sum_lanes(y, 16, 32);
    if (lane < 16) {
      publish(s.out_at + channel, y);
    }
    if (lane == 0) {
      tell_readers(channel);
    }
  }
}

} // namespace zmlx_decode
