// SPDX-License-Identifier: MIT
// Where a patched model's quantised cache differs from stock's: only at values
// that lie in the middle of two steps, up to rounding.
#include <cmath>

#include <gtest/gtest.h>

#include "tests/demo_model.h"
#include "zmlx/model/patch/patch.h"
#include "zmlx/model/quantized_cache.h"

namespace zmlx {
namespace {

// What float32 sums of another order leave, of the largest value of a group.
constexpr double kRounding = 1e-5;

Cache copy_of(const Cache& cache) {
  Cache copies;
  for (const auto& layer : cache) {
    if (const auto* kv = dynamic_cast<QuantizedKVCache*>(layer.get())) {
      copies.push_back(std::make_unique<QuantizedKVCache>(*kv));
    } else {
      copies.push_back(
          std::make_unique<ConvCache>(dynamic_cast<ConvCache&>(*layer)));
    }
  }
  return copies;
}

mx::array step(Model& model, Cache& cache, int token) {
  auto logits =
      model.network->forward(mx::array(&token, {1, 1}, mx::int32), cache, true);
  mx::eval(logits);
  eval(cache);
  return mx::reshape(logits, {-1});
}

/// The row of a position, of all heads: (heads, columns) as floats.
std::vector<float> row_of(const mx::array& rows, int position) {
  mx::Shape start = {0, 0, position, 0}, stop = rows.shape();
  stop[2] = position + 1;
  const auto row =
      mx::contiguous(mx::astype(mx::slice(rows, start, stop), mx::float32));
  mx::eval(row);
  return {row.data<float>(), row.data<float>() + row.size()};
}

/// What a layer's new row is before it is quantised: by stock, with a cache of
/// floats in that layer, of which the row itself does not depend.
std::pair<std::vector<float>, std::vector<float>>
floats_of(Model& stock, const Cache& before, size_t layer, int token) {
  auto cache = copy_of(before);
  const auto& kv = dynamic_cast<QuantizedKVCache&>(*cache[layer]);
  auto floats = std::make_unique<KVCache>();
  const int position = floats->offset = kv.offset;
  mx::Shape shape = kv.keys.scales.shape();
  shape[3] *= kv.group_size;
  floats->keys = floats->values = mx::zeros(shape);
  cache[layer] = std::move(floats);
  step(stock, cache, token);
  const auto& held = dynamic_cast<KVCache&>(*cache[layer]);
  return {row_of(*held.keys, position), row_of(*held.values, position)};
}

double from_middle(double value) {
  return std::abs(value - std::floor(value) - 0.5);
}

/// Groups of one new row that differ, and of these the ones that no tie
/// explains.
struct Flips {
  int groups = 0, unexplained = 0;
};

class Comparison {
 public:
  Comparison(int bits, int group_size)
      : most_((1 << bits) - 1),
        rounding_(kRounding * most_),
        bits_(bits),
        group_size_(group_size) {}

  void add(
      const QuantizedRows& stock,
      const QuantizedRows& ours,
      const std::vector<float>& values,
      int position) {
    const auto fields = [&](const QuantizedRows& rows) {
      return row_of(
          mx::dequantize(
              rows.words,
              mx::ones_like(rows.scales),
              mx::zeros_like(rows.biases),
              group_size_,
              bits_),
          position);
    };
    const auto theirs = fields(stock), own = fields(ours);
    const auto scales = row_of(stock.scales, position);
    const auto biases = row_of(stock.biases, position);
    const auto own_scales = row_of(ours.scales, position);
    for (size_t group = 0; group < scales.size(); ++group) {
      const size_t first = group * static_cast<size_t>(group_size_);
      const bool same_scale =
          std::abs(own_scales[group] / scales[group] - 1) < kRounding;
      bool same = same_scale, tie = !same_scale && ends_tie(&values[first]);
      for (int i = 0; i < group_size_ && same_scale; ++i) {
        if (theirs[first + i] != own[first + i]) {
          same = false;
          tie = std::abs(theirs[first + i] - own[first + i]) == 1 &&
              from_middle(
                  (double(values[first + i]) - biases[group]) / scales[group]) <
                  rounding_;
          if (!tie) {
            break;
          }
        }
      }
      flips.groups += !same;
      flips.unexplained += !same && !tie;
    }
  }

  Flips flips;

 private:
  // Whether rounding decides from which end steps are counted, or how many of
  // them zero is away.
  bool ends_tie(const float* x) const {
    const auto [low, high] = std::minmax_element(x, x + group_size_);
    const double width = (double(*high) - *low) / most_;
    const double apart = std::abs(std::abs(*low) - std::abs(*high)) / width;
    const double edge = std::max(std::abs(*low), std::abs(*high));
    return apart < rounding_ || from_middle(edge / width) < rounding_;
  }

  double most_, rounding_; // steps
  int bits_, group_size_;
};

class CacheRounding : public testing::TestWithParam<KVQuantization> {};

TEST_P(CacheRounding, DiffersFromStockOnlyBetweenTwoSteps) {
  const auto& kv = GetParam();
  const auto stock = demo(), fused = demo();
  ASSERT_EQ(patch(*fused).counts().at("decode_step"), 1);
  auto cache = stock->network->make_cache();
  step(*stock, cache, 1);
  quantize(cache, kv);
  Comparison comparison(kv.bits, kv.group_size);
  int token = 52, flipped_steps = 0;
  double apart_without = 0, apart_with = 0;
  for (int i = 0; i < 60; ++i) {
    const Cache before = copy_of(cache);
    auto ours = copy_of(cache);
    const auto logits = step(*stock, cache, token);
    const auto own = step(*fused, ours, token);
    bool flipped = false; // after that, layers have other inputs
    for (size_t layer = 0; layer < cache.size() && !flipped; ++layer) {
      const auto* theirs = dynamic_cast<QuantizedKVCache*>(cache[layer].get());
      if (theirs) {
        const auto& mine = dynamic_cast<QuantizedKVCache&>(*ours[layer]);
        const auto [keys, values] = floats_of(*stock, before, layer, token);
        const int seen = comparison.flips.groups, at = theirs->offset - 1;
        comparison.add(theirs->keys, mine.keys, keys, at);
        comparison.add(theirs->values, mine.values, values, at);
        flipped = comparison.flips.groups > seen;
      }
    }
    mx::array difference = mx::max(mx::abs(own - logits));
    auto& most = flipped ? apart_with : apart_without;
    most = std::max<double>(most, difference.item<float>());
    flipped_steps += flipped;
    token = static_cast<int>(mx::argmax(logits).item<uint32_t>());
  }
  EXPECT_EQ(comparison.flips.unexplained, 0);
  EXPECT_LT(apart_without, 5e-4);
  RecordProperty("groups", comparison.flips.groups);
  RecordProperty("steps", flipped_steps);
  RecordProperty("apart_with", std::to_string(apart_with));
  RecordProperty("apart_without", std::to_string(apart_without));
}

INSTANTIATE_TEST_SUITE_P(
    Formats,
    CacheRounding,
    testing::Values(KVQuantization{4, 64, 0}, KVQuantization{8, 64, 0}));

} // namespace
} // namespace zmlx
