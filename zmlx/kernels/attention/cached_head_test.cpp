// SPDX-License-Identifier: MIT
// Attention to a cached head against sums in double.
#include "zmlx/kernels/attention/cached_head.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>
#include <hwy/targets.h>

namespace zmlx::cpu {
namespace {

std::vector<float> normal(int64_t count, int seed, float scale = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> distribution(0, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (auto& value : values) {
    value = distribution(rng);
  }
  return values;
}

/// One side of a cache, as floats (0 bits) or fields, and the values that it
/// stands for.
struct Side {
  Side(int64_t positions, int dim, int seed, int bits, int group = 32)
      : values(normal(positions * dim, seed)) {
    if (bits == 0) {
      rows.floats = values.data();
      return;
    }
    std::mt19937 rng(seed);
    quants.resize(values.size() * static_cast<size_t>(bits) / 8);
    scales.resize(values.size() / group);
    biases.resize(scales.size());
    for (size_t g = 0; g < scales.size(); ++g) {
      scales[g] = 0.01f + 1e-5f * static_cast<float>(rng() % 1000);
      scales[g] *= bits == 8 ? 1 : 16;
      biases[g] = -static_cast<float>(1 << (bits - 1)) * scales[g];
    }
    for (auto& byte : quants) {
      byte = static_cast<uint8_t>(rng());
    }
    for (size_t i = 0; i < values.size(); ++i) {
      const int field = bits == 8 ? quants[i]
          : i % 2 == 0            ? quants[i / 2] & 15
                                  : quants[i / 2] >> 4;
      values[i] =
          scales[i / group] * static_cast<float>(field) + biases[i / group];
    }
    rows.bits = bits;
    rows.bytes = quants.data();
    rows.scales = scales.data();
    rows.biases = biases.data();
    rows.group_size = group;
  }
  std::vector<float> values, scales, biases;
  std::vector<uint8_t> quants;
  CachedRows rows;
};

std::vector<double> expected(
    const Side& keys,
    const Side& values,
    const float* query,
    int dim,
    int64_t seen) {
  std::vector<double> scores, out(dim);
  for (int64_t p = 0; p < seen; ++p) {
    double score = 0;
    for (int i = 0; i < dim; ++i) {
      score += double{query[i]} * keys.values[p * dim + i];
    }
    scores.push_back(score);
  }
  const double most = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (auto& score : scores) {
    score = std::exp(score - most);
    sum += score;
  }
  for (int64_t p = 0; p < seen; ++p) {
    for (int i = 0; i < dim; ++i) {
      out[i] += scores[p] / sum * values.values[p * dim + i];
    }
  }
  return out;
}

std::vector<float> by_chunks(
    const CachedHead& head,
    const std::vector<float>& queries,
    int count,
    int64_t seen) {
  const int64_t chunks = attention_chunks(seen);
  const int64_t stride = partial_size(count, head.head_dim);
  std::vector<float> partials(static_cast<size_t>(chunks * stride));
  for (int64_t c = chunks - 1; c >= 0; --c) {
    attend_chunk(
        head, queries.data(), count, c, seen, partials.data() + c * stride);
  }
  std::vector<float> out(queries.size());
  merge_chunks(
      partials.data(), stride, chunks, count, head.head_dim, out.data());
  return out;
}

std::vector<float> by_rows(
    const CachedHead& head,
    const std::vector<float>& queries,
    const std::vector<int64_t>& seen) {
  std::vector<float> out(queries.size());
  std::vector<float*> rows;
  for (size_t i = 0; i < seen.size(); ++i) {
    rows.push_back(out.data() + i * head.head_dim);
  }
  attend_rows(
      head,
      queries.data(),
      seen.data(),
      static_cast<int64_t>(seen.size()),
      rows.data());
  return out;
}

class CachedHeadOnEveryTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(GetParam());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
  }
};

TEST_P(CachedHeadOnEveryTarget, MatchesDoubleSumsForAnyShape) {
  for (int bits : {0, 8, 4}) {
    for (int dim : {32, 64, 96, 128, bits ? 160 : 37}) {
      for (int64_t seen : {1, 3, 64, 255, 256, 257, 700}) {
        const int count = 1 + static_cast<int>(seen) % 7;
        const Side keys(seen, dim, 1, bits), values(seen, dim, 2, bits);
        const CachedHead head{keys.rows, values.rows, dim};
        const auto queries = normal(count * dim, 3, 0.5f);
        const auto chunks = by_chunks(head, queries, count, seen);
        const auto rows =
            by_rows(head, queries, std::vector<int64_t>(count, seen));
        for (int q = 0; q < count; ++q) {
          const auto want =
              expected(keys, values, queries.data() + q * dim, dim, seen);
          for (int i = 0; i < dim; ++i) {
            ASSERT_NEAR(chunks[q * dim + i], want[i], 5e-5) << dim << seen;
            ASSERT_NEAR(rows[q * dim + i], want[i], 5e-5) << dim << seen;
          }
        }
      }
    }
  }
}

TEST_P(CachedHeadOnEveryTarget, LetsEachRowSeeItsOwnPositions) {
  const int dim = 64;
  const Side keys(600, dim, 1, 0), values(600, dim, 2, 0);
  const CachedHead head{keys.rows, values.rows, dim};
  std::vector<int64_t> seen;
  for (int i = 0; i < 30; ++i) {
    seen.push_back(1 + i * 20);
  }
  const auto queries = normal(30 * dim, 4, 0.5f);
  const auto out = by_rows(head, queries, seen);
  for (int row = 0; row < 30; ++row) {
    const auto want =
        expected(keys, values, queries.data() + row * dim, dim, seen[row]);
    for (int i = 0; i < dim; ++i) {
      ASSERT_NEAR(out[row * dim + i], want[i], 1e-5) << row;
    }
    // Alone it gets the same bits.
    const std::vector<float> query(
        queries.begin() + row * dim, queries.begin() + (row + 1) * dim);
    const auto alone = by_rows(head, query, {seen[row]});
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), &out[row * dim]));
  }
}

TEST_P(CachedHeadOnEveryTarget, KeepsScoresFarApartFinite) {
  const int dim = 64;
  Side keys(520, dim, 1, 0), values(520, dim, 2, 0);
  std::fill_n(keys.values.begin() + 300 * dim, dim, 40.0f);
  const CachedHead head{keys.rows, values.rows, dim};
  const std::vector<float> query(dim, 1.0f);
  for (const auto& out :
       {by_chunks(head, query, 1, 520), by_rows(head, query, {520})}) {
    for (int i = 0; i < dim; ++i) {
      EXPECT_FLOAT_EQ(out[i], values.values[300 * dim + i]);
    }
  }
  keys.values[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(by_chunks(head, query, 1, 520)[0]));
  EXPECT_TRUE(std::isnan(by_rows(head, query, {520})[0]));
}

std::vector<int64_t> targets() {
  std::vector<int64_t> targets;
  for (int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    targets.push_back(rest & -rest);
  }
  return targets;
}

INSTANTIATE_TEST_SUITE_P(
    Targets,
    CachedHeadOnEveryTarget,
    testing::ValuesIn(targets()));

} // namespace
} // namespace zmlx::cpu
