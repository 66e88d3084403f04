// SPDX-License-Identifier: MIT
// Quantised caches on the demo model, stock and patched.
#include "zmlx/model/quantized_cache.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/demo_model.h"
#include "zmlx/model/generate.h"
#include "zmlx/model/patch/patch.h"

namespace zmlx {
namespace {

std::vector<int> prompt() {
  std::vector<int> tokens;
  for (int i = 0; i < 40; ++i) {
    tokens.push_back(5 + i * 7 % 900);
  }
  return tokens;
}

/// Logits after a prompt in two chunks and after each of three steps.
mx::array run(Model& model, const KVQuantization& kv) {
  auto cache = model.network->make_cache();
  std::vector<mx::array> all = {prefill(model, cache, prompt(), 30, {}, kv)};
  for (int token : {11, 12, 13}) {
    const auto logits = model.network->forward(
        mx::array(&token, {1, 1}, mx::int32), cache, true);
    all.push_back(mx::reshape(logits, {-1}));
    quantize(cache, kv);
  }
  return mx::stack(all);
}

double difference(const mx::array& a, const mx::array& b) {
  return mx::max(mx::abs(a - b)).item<float>() /
      mx::max(mx::abs(b)).item<float>();
}

TEST(QuantizedKVCache, StaysNearTheFloatCacheAtEightBits) {
  const auto model = demo();
  const auto floats = run(*model, {});
  const double at_eight = difference(run(*model, {8, 64, 0}), floats);
  EXPECT_LT(at_eight, 0.02);
  EXPECT_GT(at_eight, 0);
  EXPECT_GT(difference(run(*model, {3, 64, 0}), floats), at_eight);
}

TEST(QuantizedKVCache, IsTheSamePatched) {
  const auto model = demo();
  for (const auto& kv :
       {KVQuantization{8, 64, 0}, {8, 32, 0}, {8, 64, 35}, {4, 32, 0}}) {
    const auto stock = run(*model, kv);
    patch(*model);
    // A value in the middle of two steps may be rounded either way.
    EXPECT_LT(difference(run(*model, kv), stock), 2e-3)
        << kv.bits << ' ' << kv.group_size << ' ' << kv.start;
    unpatch(*model);
  }
}

TEST(QuantizedKVCache, StartsWhereItIsToldTo) {
  const auto model = demo();
  const auto floats = run(*model, {});
  EXPECT_TRUE(mx::array_equal(run(*model, {8, 64, 1000}), floats).item<bool>());
  EXPECT_FALSE(mx::array_equal(run(*model, {8, 64, 41}), floats).item<bool>());
}

TEST(QuantizedKVCache, GrowsPastItsSteps) {
  const auto model = demo();
  auto cache = model->network->make_cache();
  std::vector<int> tokens(300, 9);
  const auto whole = prefill(*model, cache, tokens, 512);
  for (bool patched : {false, true}) {
    if (patched) {
      patch(*model);
    }
    auto own = model->network->make_cache();
    const auto parts = prefill(*model, own, tokens, 100, {}, {8, 64, 0});
    EXPECT_LT(difference(parts, whole), 0.02) << patched;
    for (const auto& layer : own) {
      if (const auto* kv = dynamic_cast<QuantizedKVCache*>(layer.get())) {
        EXPECT_EQ(kv->offset, 300);
        EXPECT_EQ(kv->keys.words.shape(2) % KVCache::kStep, 0);
      } else {
        EXPECT_EQ(dynamic_cast<KVCache*>(layer.get()), nullptr);
      }
    }
  }
}

TEST(QuantizedKVCache, RefusesBitsAndGroupsThatItCannotHold) {
  const auto model = demo();
  EXPECT_THROW(run(*model, {7, 64, 0}), std::invalid_argument);
  EXPECT_THROW(run(*model, {8, 48, 0}), std::invalid_argument);
  EXPECT_THROW(run(*model, {8, 128, 0}), std::invalid_argument);
  EXPECT_THROW(check({8, 64, -1}), std::invalid_argument);
}

} // namespace
} // namespace zmlx
