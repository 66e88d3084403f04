// SPDX-License-Identifier: MIT
// Few queries over a chunk of the cache, at the speed of reading it.
#include "zmlx/kernels/attention/cached_head.h"

#include <algorithm>
#include <cmath>

#include "zmlx/kernels/common/aligned.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/kernels/attention/cached_head.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/kernels/attention/cached_rows-inl.h"
#include "zmlx/kernels/common/float_tile-inl.h"
#include "zmlx/kernels/common/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

// Positions, and vectors of values, that queries pass over together.
constexpr int kTogether = kSanitized ? 2 : 4;
constexpr int kQueries = kTogether;

#if HWY_TARGET != HWY_SCALAR // where a vector has one lane
/// The sums of the lanes of four vectors, of which each lane of a block is one.
template <class D>
HWY_INLINE hn::Vec<hn::Full128<float>> sum_of_blocks(D d, hn::Vec<D> sums) {
  if constexpr (hn::MaxLanes(d) > 4) {
    const hn::Half<D> half;
    return sum_of_blocks(
        half, hn::Add(hn::LowerHalf(half, sums), hn::UpperHalf(half, sums)));
  } else {
    return sums;
  }
}

/// out[i] = the sum of sums[i]'s lanes: 13 operations for four, not 36.
HWY_INLINE void store_four_sums(const FloatVector* sums, float* out) {
  const Floats d;
  const hn::RepartitionToWide<Floats> pairs; // of floats that move together
  const auto two = [&](int i) ZMLX_INLINE_LAMBDA {
    return hn::BitCast(
        pairs,
        hn::Add(
            hn::InterleaveLower(d, sums[i], sums[i + 1]),
            hn::InterleaveUpper(d, sums[i], sums[i + 1])));
  };
  const auto first = two(0), second = two(2);
  const auto blocks = hn::Add(
      hn::BitCast(d, hn::InterleaveLower(pairs, first, second)),
      hn::BitCast(d, hn::InterleaveUpper(pairs, first, second)));
  hn::StoreU(sum_of_blocks(d, blocks), hn::Full128<float>(), out);
}
#endif

/// scores[q][p] = queries[q] . row first + p.
template <int kCount, int kPositions, class Rows>
HWY_INLINE void scores_of(
    const Rows& rows,
    const float* queries,
    int64_t dim,
    int64_t first,
    float* scores) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVector sums[kCount * kPositions];
  clear(sums);
  unrolled<kPositions>(
      [&](auto p) ZMLX_INLINE_LAMBDA { rows.prefetch(first + p + kAhead); });
  int64_t i = 0;
  for (; i + lanes <= dim; i += lanes) {
    FloatVector keys[kPositions];
    unrolled<kPositions>([&](auto p) ZMLX_INLINE_LAMBDA {
      keys[p] = rows.load(d, first + p, i);
    });
    unrolled<kCount>([&](auto q) ZMLX_INLINE_LAMBDA {
      const FloatVector query = hn::LoadU(d, queries + q * dim + i);
      unrolled<kPositions>([&](auto p) ZMLX_INLINE_LAMBDA {
        sums[q * kPositions + p] =
            hn::MulAdd(query, keys[p], sums[q * kPositions + p]);
      });
    });
  }
  unrolled<kCount>([&](auto q) ZMLX_INLINE_LAMBDA {
    float* of_query = scores + q * kAttentionChunk;
#if HWY_TARGET != HWY_SCALAR
    if constexpr (kPositions == 4) {
      store_four_sums(sums + q * kPositions, of_query);
      return;
    }
#endif
    unrolled<kPositions>([&](auto p) ZMLX_INLINE_LAMBDA {
      of_query[p] = hn::GetLane(hn::SumOfLanes(d, sums[q * kPositions + p]));
    });
  });
  const hn::CappedTag<float, 1> one;
  for (; i < dim; ++i) {
    for (int p = 0; p < kPositions; ++p) {
      const float key = hn::GetLane(rows.load(one, first + p, i));
      for (int q = 0; q < kCount; ++q) {
        scores[q * kAttentionChunk + p] += queries[q * dim + i] * key;
      }
    }
  }
}

/// out[q][i ..] = sum over p of weights[q][p] * row p, kVectors vectors wide.
template <int kCount, int kVectors, class Rows>
HWY_INLINE void weighted_sum(
    const Rows& rows,
    const float* weights,
    int64_t count,
    int64_t i,
    float* const* out) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVector sums[kCount * kVectors];
  clear(sums);
  for (int64_t p = 0; p < count; ++p) {
    if (i == 0) {
      rows.prefetch(p + kAhead);
    }
    FloatVector values[kVectors];
    unrolled<kVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
      values[v] = rows.load(d, p, i + v * lanes);
    });
    unrolled<kCount>([&](auto q) ZMLX_INLINE_LAMBDA {
      const FloatVector weight = hn::Set(d, weights[q * kAttentionChunk + p]);
      unrolled<kVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
        sums[q * kVectors + v] =
            hn::MulAdd(weight, values[v], sums[q * kVectors + v]);
      });
    });
  }
  unrolled<kCount>([&](auto q) ZMLX_INLINE_LAMBDA {
    unrolled<kVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
      hn::StoreU(sums[q * kVectors + v], d, out[q] + i + v * lanes);
    });
  });
}

/// scores of kCount queries over `count` positions.
template <int kCount, class Rows>
HWY_NOINLINE void all_scores(
    const Rows& keys,
    const float* queries,
    int64_t dim,
    int64_t count,
    float* scores) {
  int64_t p = 0;
  for (; p + kTogether <= count; p += kTogether) {
    scores_of<kCount, kTogether>(keys, queries, dim, p, scores + p);
  }
  for (; p < count; ++p) {
    scores_of<kCount, 1>(keys, queries, dim, p, scores + p);
  }
}

template <int kCount, class Rows>
HWY_NOINLINE void all_sums(
    const Rows& values,
    const float* weights,
    int64_t dim,
    int64_t count,
    float* const* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  int64_t i = 0;
  for (; i + kTogether * lanes <= dim; i += kTogether * lanes) {
    weighted_sum<kCount, kTogether>(values, weights, count, i, out);
  }
  for (; i + lanes <= dim; i += lanes) {
    weighted_sum<kCount, 1>(values, weights, count, i, out);
  }
  const hn::CappedTag<float, 1> one;
  for (; i < dim; ++i) {
    for (int q = 0; q < kCount; ++q) {
      float sum = 0;
      for (int64_t p = 0; p < count; ++p) {
        sum += weights[q * kAttentionChunk + p] *
            hn::GetLane(values.load(one, p, i));
      }
      out[q][i] = sum;
    }
  }
}

/// kCount queries over `count` positions of rows that start at the chunk.
template <int kCount>
void attend(
    const CachedHead& head,
    const float* queries,
    int64_t count,
    float* partial) {
  const int64_t dim = head.head_dim;
  HWY_ALIGN float scores[kCount * kAttentionChunk];
  with_rows(head.keys, dim, [&](const auto& keys) {
    all_scores<kCount>(keys, queries, dim, count, scores);
  });
  float* out[kCount];
  for (int q = 0; q < kCount; ++q) {
    float* row = scores + q * kAttentionChunk;
    out[q] = partial + q * (dim + 2);
    const float most = largest(row, count, -INFINITY);
    out[q][dim] = most;
    out[q][dim + 1] = exp_and_sum(row, most, count);
  }
  with_rows(head.values, dim, [&](const auto& values) {
    all_sums<kCount>(values, scores, dim, count, out);
  });
}

void AttendChunk(
    const CachedHead& head, // its rows start at the chunk
    const float* queries,
    int count,
    int64_t positions,
    float* partial) {
  const int64_t dim = head.head_dim;
  for (int q = 0; q < count; q += kQueries) {
    const int64_t left = std::min(kQueries, count - q);
    const float* mine = queries + q * dim;
    float* out = partial + q * (dim + 2);
    if (left == kQueries) {
      attend<kQueries>(head, mine, positions, out);
    } else if (left == 1) {
      attend<1>(head, mine, positions, out);
    } else {
      // Queries of zeros fill the places: reading the cache is what costs.
      static thread_local AlignedVector<float> filled;
      filled.assign(static_cast<size_t>(kQueries * (2 * dim + 2)), 0.0f);
      std::copy(mine, mine + left * dim, filled.data());
      float* result = filled.data() + kQueries * dim;
      attend<kQueries>(head, filled.data(), positions, result);
      std::copy(result, result + left * (dim + 2), out);
    }
  }
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(AttendChunk);

namespace {

CachedRows from(const CachedRows& rows, int64_t position, int64_t dim) {
  CachedRows moved = rows;
  if (rows.floats) {
    moved.floats += position * dim;
  } else {
    moved.bytes += position * (dim * rows.bits / 8);
    moved.scales += position * (dim / rows.group_size);
    moved.biases += position * (dim / rows.group_size);
  }
  return moved;
}

// mlx.core.quantize of 8 or 4 bits: the end of the range that is further from
// zero is exact, and zero is if it is in the range.
void quantize_group(
    const float* x,
    int count,
    int bits,
    uint8_t* bytes,
    float* scale_out,
    float* bias_out) {
  const auto most = static_cast<float>((1 << bits) - 1);
  const auto [low, high] = std::minmax_element(x, x + count);
  const bool from_low = std::abs(*low) > std::abs(*high);
  float scale = std::max((*high - *low) / most, 1e-7f);
  scale = from_low ? scale : -scale;
  const float edge = from_low ? *low : *high;
  const float steps = std::rint(edge / scale);
  float bias = 0;
  if (steps != 0) {
    scale = edge / steps;
    bias = edge;
  }
  const auto field = [&](int i) {
    const float value = std::rint((x[i] - bias) / scale);
    return static_cast<uint8_t>(std::min(std::max(value, 0.0f), most));
  };
  for (int i = 0; i < count * bits / 8; ++i) {
    bytes[i] = bits == 8
        ? field(i)
        : static_cast<uint8_t>(field(2 * i) | field(2 * i + 1) << 4);
  }
  *scale_out = scale;
  *bias_out = bias;
}

} // namespace

CachedRows CacheRows::from(int64_t row) const {
  return cpu::from(
      {floats, bytes, scales, biases, group_size, bits}, row, head_dim);
}

void CacheRows::store(int64_t row, const float* x) const {
  if (floats) {
    std::copy(x, x + head_dim, floats + row * head_dim);
    return;
  }
  const int64_t groups = head_dim / group_size;
  for (int64_t g = 0; g < groups; ++g) {
    quantize_group(
        x + g * group_size,
        group_size,
        bits,
        bytes + row * row_bytes() + g * group_size * bits / 8,
        scales + row * groups + g,
        biases + row * groups + g);
  }
}

void attend_chunk(
    const CachedHead& head,
    const float* queries,
    int count,
    int64_t chunk,
    int64_t seen,
    float* partial) {
  const int64_t first = chunk * kAttentionChunk, dim = head.head_dim;
  HWY_DYNAMIC_DISPATCH(AttendChunk)(
      {from(head.keys, first, dim),
       from(head.values, first, dim),
       head.head_dim},
      queries,
      count,
      std::min(kAttentionChunk, seen - first),
      partial);
}

void merge_chunks(
    const float* partials,
    int64_t stride,
    int64_t chunks,
    int count,
    int head_dim,
    float* out) {
  for (int q = 0; q < count; ++q) {
    const float* first = partials + q * (head_dim + 2);
    float* row = out + q * head_dim;
    float most = first[head_dim];
    for (int64_t c = 1; c < chunks; ++c) {
      most = std::max(most, first[c * stride + head_dim]);
    }
    float sum = 0;
    std::fill(row, row + head_dim, 0.0f);
    for (int64_t c = 0; c < chunks; ++c) {
      const float* part = first + c * stride;
      const float weight = std::exp(part[head_dim] - most);
      sum += weight * part[head_dim + 1];
      axpy(weight, part, row, head_dim);
    }
    for (int i = 0; i < head_dim; ++i) {
      row[i] /= sum;
    }
  }
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
