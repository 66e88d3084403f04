// SPDX-License-Identifier: MIT
// Batches of sequences through the decode program: what they give, and what
// they read.
#include <unordered_map>

#include <gtest/gtest.h>

#include "tests/demo_model.h"
#include "zmlx/model/decode/fused_network.h"
#include "zmlx/model/patch/patch.h"

namespace zmlx::decode {
namespace {

/// A token for each sequence of a batch.
mx::array tokens(int batch, int step) {
  std::vector<int> ids;
  for (int i = 0; i < batch; ++i) {
    ids.push_back((5 + 37 * i + 211 * step) % 900);
  }
  return mx::array(ids.begin(), {batch, 1}, mx::int32);
}

mx::array logits_of_three_steps(Network& network, int batch) {
  auto cache = network.make_cache();
  std::vector<mx::array> logits;
  for (int step = 0; step < 3; ++step) {
    logits.push_back(network.forward(tokens(batch, step), cache, true));
    mx::eval(logits.back());
  }
  return mx::concatenate(logits, 1);
}

TEST(Batch, EqualsStockAtEverySize) {
  const auto stock = demo(), fused = demo();
  patch(*fused);
  ASSERT_NE(dynamic_cast<FusedNetwork*>(fused->network.get()), nullptr);
  for (int batch : {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 25}) {
    const auto want = logits_of_three_steps(*stock->network, batch);
    const auto got = logits_of_three_steps(*fused->network, batch);
    EXPECT_LT(mx::max(mx::abs(got - want)).item<float>(), 1e-4) << batch;
    auto same = mx::array_equal(mx::argmax(got, -1), mx::argmax(want, -1));
    EXPECT_TRUE(same.item<bool>()) << batch;
  }
}

/// Bytes that each kind of stage reads in a step.
std::unordered_map<std::string, uint64_t> bytes_of_step(
    FusedNetwork& network,
    const mx::array& step) {
  network.executor->start_timing();
  auto cache = network.make_cache();
  mx::eval(network.forward(step, cache, true));
  std::unordered_map<std::string, uint64_t> bytes;
  for (const auto& stage : network.executor->stop_timing()) {
    bytes[stage.name] = stage.bytes;
  }
  return bytes;
}

TEST(Batch, ReadsAnExpertOnceForAllWhoGoThere) {
  const auto model = demo();
  patch(*model);
  auto& network = dynamic_cast<FusedNetwork&>(*model->network);
  auto one = bytes_of_step(network, tokens(1, 0));
  auto same = bytes_of_step(network, mx::repeat(tokens(1, 0), 6, 0));
  auto others = bytes_of_step(network, tokens(6, 0));
  EXPECT_EQ(same["embed"], 6 * one["embed"]);
  for (const char* stage : {"experts", "down", "head", "qkv", "mix"}) {
    EXPECT_GT(one[stage], 0u) << stage;
    EXPECT_EQ(same[stage], one[stage]) << stage;
  }
  EXPECT_GT(others["experts"], one["experts"]);
  EXPECT_LE(others["experts"], 6 * one["experts"]);
  EXPECT_GT(others["down"], one["down"]);
  EXPECT_EQ(others["head"], one["head"]);
}

} // namespace
} // namespace zmlx::decode
