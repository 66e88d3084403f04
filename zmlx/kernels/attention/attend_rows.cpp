// SPDX-License-Identifier: MIT
// Many queries over the cache, chunk by chunk with running sums (Dao et al.,
// arXiv:2205.14135): scores and sums are small float products.
#include <algorithm>
#include <cmath>
#include <vector>

#include "zmlx/kernels/attention/cached_head.h"
#include "zmlx/kernels/common/aligned.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/kernels/attention/attend_rows.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/kernels/attention/cached_rows-inl.h"
#include "zmlx/kernels/common/float_tile-inl.h"
#include "zmlx/kernels/common/vector_math.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

constexpr int64_t kChunk = kAttentionChunk;
// A chunk and a little, so that columns of a panel do not share cache sets.
constexpr int64_t kPanelStride = kChunk + 16;

/// The queries of one call in tiles, with their running results. Rows that see
/// nothing fill the last tile.
class RowTiles {
 public:
  static constexpr int kTile = kFloatTile;

  RowTiles(
      const float* queries,
      const int64_t* seen,
      int64_t count,
      int64_t dim,
      int64_t width)
      : dim_(dim),
        width_(width),
        count_(count),
        tiles_((count + kTile - 1) / kTile),
        seen_(static_cast<size_t>(tiles_ * kTile)),
        queries_(static_cast<size_t>(tiles_ * kTile * dim)),
        sums_(static_cast<size_t>(tiles_ * kTile * width)),
        most_(static_cast<size_t>(tiles_ * kTile), -INFINITY),
        total_(static_cast<size_t>(tiles_ * kTile)) {
    std::copy(seen, seen + count, seen_.begin());
    for (int64_t row = 0; row < count; ++row) {
      float* tile = queries_.data() + row / kTile * kTile * dim;
      for (int64_t i = 0; i < dim; ++i) {
        tile[i * kTile + row % kTile] = queries[row * dim + i];
      }
    }
  }

  int64_t tiles() const {
    return tiles_;
  }

  /// Takes `positions` keys and values into the results of one tile.
  HWY_NOINLINE void add_chunk(
      int64_t tile,
      const float* keys, // (dim, kPanelStride)
      const float* values, // (positions, width)
      int64_t start,
      int64_t positions) {
    const Floats d;
    const int64_t step = kFloatVectors * static_cast<int64_t>(hn::Lanes(d));
    const int64_t row = tile * kTile;
    int64_t counts[kTile], most = 0;
    for (int t = 0; t < kTile; ++t) {
      counts[t] = std::clamp<int64_t>(seen_[row + t] - start, 0, positions);
      most = std::max(most, counts[t]);
    }
    if (most == 0) {
      return;
    }
    HWY_ALIGN float scores[kTile * kChunk];
    FloatVector sums[kFloatVectors * kTile];
    for (int64_t p = 0; p < most; p += step) {
      clear(sums);
      add_products<kTile, kTile, 1>(
          keys + p, kPanelStride, queries_.data() + row * dim_, dim_, sums);
      store(sums, scores + p);
    }
    float factors[kTile];
    for (int t = 0; t < kTile; ++t) {
      factors[t] = soften(row + t, counts[t], most, scores + t * kChunk);
    }
    for (int64_t i = 0; i < width_; i += step) {
      clear(sums);
      add_products<kTile, 1, kChunk>(values + i, width_, scores, most, sums);
      unrolled<kTile>([&](auto t) ZMLX_INLINE_LAMBDA {
        unrolled<kFloatVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
          float* sum = sums_.data() + (row + t) * width_ + i +
              v * static_cast<int64_t>(hn::Lanes(d));
          hn::StoreU(
              hn::MulAdd(
                  hn::LoadU(d, sum),
                  hn::Set(d, factors[t]),
                  sums[v * kTile + t]),
              d,
              sum);
        });
      });
    }
  }

  void finish(float* const* out) const {
    for (int64_t row = 0; row < count_; ++row) {
      for (int64_t i = 0; i < dim_; ++i) {
        out[row][i] = sums_[row * width_ + i] / total_[row];
      }
    }
  }

 private:
  static HWY_INLINE void store(
      const FloatVector (&sums)[kFloatVectors * kTile],
      float* out) {
    const Floats d;
    unrolled<kTile>([&](auto t) ZMLX_INLINE_LAMBDA {
      unrolled<kFloatVectors>([&](auto v) ZMLX_INLINE_LAMBDA {
        hn::StoreU(
            sums[v * kTile + t],
            d,
            out + t * kChunk + v * static_cast<int64_t>(hn::Lanes(d)));
      });
    });
  }

  /// Scores of a row to exponentials, zero after the first `count`; returns
  /// what its sums so far must be multiplied by.
  float soften(int64_t row, int64_t count, int64_t width, float* scores) {
    std::fill(scores + count, scores + width, 0.0f);
    if (count == 0) {
      return 1;
    }
    const float most = largest(scores, count, most_[row]);
    const float factor = std::exp(most_[row] - most);
    most_[row] = most;
    total_[row] = total_[row] * factor + exp_and_sum(scores, most, count);
    return factor;
  }

  int64_t dim_, width_, count_, tiles_;
  std::vector<int64_t> seen_;
  AlignedVector<float> queries_, sums_, most_, total_;
};

template <class Rows>
void read_rows(
    const Rows& rows,
    int64_t first,
    int64_t count,
    int64_t dim,
    int64_t width,
    float* out) {
  const Floats d;
  const hn::CappedTag<float, 1> one;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t p = 0; p < count; ++p) {
    float* to = out + p * width;
    int64_t i = 0;
    for (; i + lanes <= dim; i += lanes) {
      hn::StoreU(rows.load(d, first + p, i), d, to + i);
    }
    for (; i < dim; ++i) {
      hn::StoreU(rows.load(one, first + p, i), one, to + i);
    }
    std::fill(to + dim, to + width, 0.0f);
  }
}

void AttendRows(
    const CachedHead& head,
    const float* queries,
    const int64_t* seen,
    int64_t count,
    float* const* out) {
  const int64_t dim = head.head_dim;
  const int64_t step =
      kFloatVectors * static_cast<int64_t>(hn::Lanes(Floats()));
  const int64_t width = (dim + step - 1) / step * step;
  RowTiles tiles(queries, seen, count, dim, width);
  AlignedVector<float> rows(static_cast<size_t>(kChunk * width));
  AlignedVector<float> keys(static_cast<size_t>(dim * kPanelStride));
  const int64_t last = *std::max_element(seen, seen + count);
  for (int64_t start = 0; start < last; start += kChunk) {
    const int64_t positions = std::min(kChunk, last - start);
    with_rows(head.keys, dim, [&](const auto& reader) {
      read_rows(reader, start, positions, dim, width, rows.data());
    });
    for (int64_t i = 0; i < dim; ++i) {
      for (int64_t p = 0; p < positions; ++p) {
        keys[i * kPanelStride + p] = rows[p * width + i];
      }
    }
    with_rows(head.values, dim, [&](const auto& reader) {
      read_rows(reader, start, positions, dim, width, rows.data());
    });
    for (int64_t tile = 0; tile < tiles.tiles(); ++tile) {
      tiles.add_chunk(tile, keys.data(), rows.data(), start, positions);
    }
  }
  tiles.finish(out);
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(AttendRows);

void attend_rows(
    const CachedHead& head,
    const float* queries,
    const int64_t* seen,
    int64_t count,
    float* const* out) {
  if (count > 0) {
    HWY_DYNAMIC_DISPATCH(AttendRows)(head, queries, seen, count, out);
  }
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
