// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/written_cache.h"

#include <gtest/gtest.h>

#include "zmlx/runtime/cpu_op.h"

namespace zmlx::decode {
namespace {

/// An operation that writes 7 into `into`, unseen by MLX, when it runs.
mx::array step_into(const mx::array& into) {
  float* place = mx::array(into).data<float>();
  return cpu_op(
      "Step",
      {},
      {{{1}, mx::int32}},
      [place](const std::vector<mx::array>&, std::vector<mx::array>& out) {
        *place = 7;
        out[0].data<int>()[0] = 0;
      })[0];
}

TEST(WrittenCache, IsReadAfterTheStepThatWritesIt) {
  auto cache = mx::ones({3});
  mx::eval(cache);
  const auto readable = once_written(cache, step_into(cache));
  // Nobody has asked for the step but by reading.
  EXPECT_EQ(mx::sum(readable).item<float>(), 9);
}

TEST(WrittenCache, IsAloneAgainOnceNobodyHasTheReadableArray) {
  auto cache = mx::ones({3});
  mx::eval(cache);
  const auto* data = cache.data<float>();
  auto step = step_into(cache);
  mx::eval(step);
  mx::array readable = once_written(cache, step);
  cache = mx::array(0);
  cache = as_given(readable);
  EXPECT_FALSE(cache.is_donatable());
  readable = mx::array(0);
  EXPECT_EQ(cache.data<float>(), data);
  EXPECT_TRUE(cache.is_donatable());
}

TEST(WrittenCache, SharesItsMemoryWithWhoeverHasReadIt) {
  auto cache = mx::ones({3});
  mx::eval(cache);
  const auto* data = cache.data<float>();
  mx::array readable = once_written(cache, step_into(cache));
  mx::eval(readable);
  EXPECT_EQ(readable.data<float>(), data);
  // It is an array like others now, and alone once the cache has gone.
  EXPECT_EQ(as_given(readable).id(), readable.id());
  cache = mx::array(0);
  EXPECT_TRUE(readable.is_donatable());
}

TEST(WrittenCache, LeavesOtherArraysAsTheyAre) {
  const auto plain = mx::ones({3});
  EXPECT_EQ(as_given(plain).id(), plain.id());
}

} // namespace
} // namespace zmlx::decode
