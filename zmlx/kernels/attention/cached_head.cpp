// SPDX-License-Identifier: MIT
// Few queries over a chunk of the cache, at the speed of reading it.
#include "zmlx/kernels/attention/cached_head.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/kernels/attention/cached_head.cpp"
#define HWY_WANT_AVX3_DL 1
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
  const hn::CappedTag<float, 1> one;
  unrolled<kCount>([&](auto q) ZMLX_INLINE_LAMBDA {
    unrolled<kPositions>([&](auto p) ZMLX_INLINE_LAMBDA {
      float sum = hn::GetLane(hn::SumOfLanes(d, sums[q * kPositions + p]));
      for (int64_t j = i; j < dim; ++j) {
        sum += queries[q * dim + j] * hn::GetLane(rows.load(one, first + p, j));
      }
      scores[q * kAttentionChunk + p] = sum;
    });
  });
}

/// out[q][i ..] = sum over p of weights[q][p] * row p, kVectors vectors wide.
template <int kCount, int kVectors, class D, class Rows>
HWY_INLINE void weighted_sum(
    D d,
    const Rows& rows,
    const float* weights,
    int64_t count,
    int64_t i,
    float* const* out) {
  using V = hn::Vec<D>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V sums[kCount * kVectors];
  unrolled<kCount * kVectors>(
      [&](auto s) ZMLX_INLINE_LAMBDA { sums[s] = hn::Zero(d); });
  for (int64_t p = 0; p < count; ++p) {
    if (i == 0) {
      rows.prefetch(p + kAhead);
    }
    V values[kVectors];
    unrolled<kVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
      values[v] = rows.load(d, p, i + v * lanes);
    });
    unrolled<kCount>([&](auto q) ZMLX_INLINE_LAMBDA {
      const V weight = hn::Set(d, weights[q * kAttentionChunk + p]);
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

/// kCount queries over `count` positions of rows that start at the chunk.
template <int kCount, class Keys, class Values>
void attend(
    const Keys& keys,
    const Values& values,
    const float* queries,
    int64_t dim,
    int64_t count,
    float* partial) {
  HWY_ALIGN float scores[kCount * kAttentionChunk];
  int64_t p = 0;
  for (; p + kTogether <= count; p += kTogether) {
    scores_of<kCount, kTogether>(keys, queries, dim, p, scores + p);
  }
  for (; p < count; ++p) {
    scores_of<kCount, 1>(keys, queries, dim, p, scores + p);
  }
  float* out[kCount];
  for (int q = 0; q < kCount; ++q) {
    float* row = scores + q * kAttentionChunk;
    out[q] = partial + q * (dim + 2);
    const float most = largest(row, count, -INFINITY);
    out[q][dim] = most;
    out[q][dim + 1] = exp_and_sum(row, most, count);
  }
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + kTogether * lanes <= dim; i += kTogether * lanes) {
    weighted_sum<kCount, kTogether>(d, values, scores, count, i, out);
  }
  for (; i + lanes <= dim; i += lanes) {
    weighted_sum<kCount, 1>(d, values, scores, count, i, out);
  }
  for (; i < dim; ++i) {
    weighted_sum<kCount, 1>(
        hn::CappedTag<float, 1>(), values, scores, count, i, out);
  }
}

void AttendChunk(
    const CachedHead& head, // its rows start at the chunk
    const float* queries,
    int count,
    int64_t positions,
    float* partial) {
  const int64_t dim = head.head_dim;
  with_rows(head.keys, dim, [&](const auto& keys) {
    with_rows(head.values, dim, [&](const auto& values) {
      for (int q = 0; q < count; q += kQueries) {
        with_constant<kQueries>(
            std::min(kQueries, count - q), [&](auto together) {
              attend<together>(
                  keys,
                  values,
                  queries + q * dim,
                  dim,
                  positions,
                  partial + q * (dim + 2));
            });
      }
    });
  });
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
    moved.bytes += position * dim;
    moved.scales += position * (dim / rows.group_size);
    moved.biases += position * (dim / rows.group_size);
  }
  return moved;
}

} // namespace

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
