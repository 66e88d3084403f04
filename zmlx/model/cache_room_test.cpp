// SPDX-License-Identifier: MIT
// Growing caches, and steps that take them over while another step runs.
#include "zmlx/model/cache_room.h"

#include <gtest/gtest.h>

#include "tests/demo_model.h"
#include "zmlx/model/generate.h"
#include "zmlx/model/patch/patch.h"

namespace zmlx {
namespace {

TEST(CacheRoom, GrowsByAQuarterInWholeSteps) {
  EXPECT_EQ(grown_capacity(0, 1, 0), 256);
  EXPECT_EQ(grown_capacity(256, 257, 0), 512);
  EXPECT_EQ(grown_capacity(4096, 4097, 0), 5120);
  EXPECT_EQ(grown_capacity(256, 300, 5000), 5120);
  EXPECT_EQ(grown_capacity(256, 6000, 5000), 6144);
}

TEST(CacheRoom, KeepsUsedRowsAndZeroesTheRest) {
  for (const auto dtype : {mx::float32, mx::bfloat16, mx::uint32}) {
    // Held with its axes swapped, as a stock layer may hand it over.
    const auto held = mx::astype(
        mx::transpose(
            mx::reshape(mx::arange(2 * 5 * 3 * 4), {2, 5, 3, 4}), {0, 2, 1, 3}),
        dtype);
    for (int used : {1, 4, 5}) {
      const auto room = with_room(held, used, {2, 3, 256, 4}, dtype);
      EXPECT_EQ(room.shape(), (mx::Shape{2, 3, 256, 4}));
      const auto rows = mx::slice(held, {0, 0, 0, 0}, {2, 3, used, 4});
      const auto rest = mx::zeros({2, 3, 256 - used, 4}, dtype);
      EXPECT_TRUE(
          mx::array_equal(room, mx::concatenate({rows, rest}, 2)).item<bool>());
    }
  }
  const auto empty = with_room(std::nullopt, 0, {1, 2, 256, 8}, mx::float16);
  EXPECT_TRUE(
      mx::array_equal(empty, mx::zeros({1, 2, 256, 8}, mx::float16))
          .item<bool>());
}

class RunningSteps : public testing::Test {
 protected:
  void SetUp() override {
    model = demo();
    patch(*model);
    cache = model->network->make_cache();
    expect(cache, 8192);
    prefill(*model, cache, {5, 6, 7});
  }
  KVCache& kv() {
    for (auto& layer : cache) {
      if (auto* found = dynamic_cast<KVCache*>(layer.get())) {
        return *found;
      }
    }
    throw std::logic_error("the demo model has attention");
  }
  mx::array step(int token) {
    auto logits = model->network->forward(
        mx::array(&token, {1, 1}, mx::int32), cache, true);
    mx::async_eval(logits);
    return logits;
  }
  std::unique_ptr<Model> model;
  Cache cache;
};

TEST_F(RunningSteps, UpdateLongCachesInPlace) {
  EXPECT_EQ(kv().keys->shape(2), 8192);
  ASSERT_GT(kv().keys->nbytes(), size_t{1} << 20);
  const float* before = kv().keys->data<float>();
  std::vector<mx::array> running;
  for (int token = 10; token < 30; ++token) {
    running.push_back(step(token)); // none is waited for
  }
  mx::eval(running);
  eval(cache);
  EXPECT_EQ(kv().keys->data<float>(), before);
}

TEST_F(RunningSteps, UpdateCachesOfEightBitsInPlace) {
  quantize(cache, {8, 64, 0});
  const QuantizedKVCache* packed = nullptr;
  for (auto& layer : cache) {
    auto* found = dynamic_cast<QuantizedKVCache*>(layer.get());
    packed = found ? found : packed;
  }
  ASSERT_NE(packed, nullptr);
  mx::eval(step(9)); // makes room
  eval(cache);
  EXPECT_EQ(packed->keys.words.shape(2), 8192);
  const auto* before = packed->keys.words.data<uint32_t>();
  std::vector<mx::array> running;
  for (int token = 10; token < 20; ++token) {
    running.push_back(step(token));
  }
  mx::eval(running);
  eval(cache);
  EXPECT_EQ(packed->keys.words.data<uint32_t>(), before);
  EXPECT_EQ(packed->offset, 14);
}

TEST_F(RunningSteps, LeaveACacheThatSomebodyHoldsAsItWas) {
  const mx::array held = *kv().keys;
  const mx::array copy = mx::copy(held + mx::array(0.0f));
  mx::eval(copy);
  const auto one = step(10), two = step(11);
  mx::eval(one, two);
  EXPECT_TRUE(mx::array_equal(held, copy).item<bool>());
  EXPECT_NE(kv().keys->data<float>(), held.data<float>());
}

} // namespace
} // namespace zmlx
