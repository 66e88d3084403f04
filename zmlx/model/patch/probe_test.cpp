// SPDX-License-Identifier: MIT
#include "zmlx/model/patch/probe.h"

#include <gtest/gtest.h>

namespace zmlx {
namespace {

/// Doubles rows; of many, what `many` makes of them.
struct Doubling : Layer {
  std::function<mx::array(const mx::array&)> many;

  std::string_view kind() const override {
    return "Doubling";
  }
  mx::array forward(const mx::array& x) const override {
    const auto y = x + x;
    return x.shape(1) > 100 && many ? many(y) : y;
  }
};

TEST(Probe, ComparesRowsAmongManyWithTheSameRowsAlone) {
  Doubling layer;
  EXPECT_EQ(apart_among_many(layer, 64, mx::bfloat16), 0);
  layer.many = [](const mx::array& y) {
    return mx::take(y, mx::arange(511, -1, -1), 1);
  };
  EXPECT_GT(apart_among_many(layer, 64, mx::bfloat16), 0.5);
  layer.many = [](const mx::array& y) { return y * mx::array(NAN); };
  EXPECT_FALSE(apart_among_many(layer, 64, mx::bfloat16) <= 1e9);
  // One row of seven that fell otherwise is none too many.
  layer.many = [](const mx::array& y) {
    return mx::where(
        mx::equal(mx::reshape(mx::arange(512), {1, 512, 1}), mx::array(2)),
        mx::zeros_like(y),
        y);
  };
  EXPECT_EQ(apart_among_many(layer, 64, mx::bfloat16), 0);
}

/// Wrong for the first so many rows that come alone.
struct Late : Doubling {
  mutable int wrong = 0;
  mx::array forward(const mx::array& x) const override {
    return x.shape(1) == 1 && wrong-- > 0 ? x : x + x;
  }
};

TEST(Probe, ForgivesATieBelowFloat32Only) {
  const Doubling stock;
  Late fused;
  fused.wrong = 9; // of the first input
  EXPECT_TRUE(probe(stock, fused, 64, mx::bfloat16).passed());
  fused.wrong = 9;
  EXPECT_FALSE(probe(stock, fused, 64, mx::float32).passed());
  fused.wrong = 1000;
  EXPECT_FALSE(probe(stock, fused, 64, mx::bfloat16).passed());
}

} // namespace
} // namespace zmlx
