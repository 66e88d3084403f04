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

/// Logits of every token: a one at the token; of a prompt with `noise` beside.
struct OneHot : Network {
  float noise = 0;

  std::string_view kind() const override {
    return "OneHot";
  }
  Cache make_cache() const override {
    return {};
  }
  mx::array forward(const mx::array& tokens, Cache&, bool) override {
    const int length = tokens.shape(1);
    const auto last = mx::slice(tokens, {0, length - 1}, {1, length});
    const auto y = mx::astype(
        mx::equal(mx::expand_dims(last, -1), mx::arange(16)), mx::float32);
    return length > 1 ? y + mx::array(noise) : y;
  }
};

/// The same with an error.
struct Step : decode::StepExecutor {
  float error = 0;

  mx::array forward(const mx::array& tokens, Cache& cache) override {
    return OneHot().forward(tokens, cache, true) + mx::array(error);
  }
};

TEST(Probe, TakesAStepThatIsAsFarAsAPrompt) {
  OneHot network;
  Step step;
  auto passes = [&](float noise, float error, mx::Dtype dtype) {
    network.noise = noise;
    step.error = error;
    return probe(network, step, 16, dtype).passed();
  };
  EXPECT_TRUE(passes(0, 0.1f, mx::bfloat16));
  EXPECT_FALSE(passes(0, 0.2f, mx::bfloat16));
  EXPECT_TRUE(passes(0.25f, 0.2f, mx::bfloat16));
  EXPECT_FALSE(passes(5, 0.4f, mx::bfloat16)); // twice what is allowed: 0.3
  EXPECT_FALSE(passes(0.25f, 0.2f, mx::float32));
  EXPECT_FALSE(passes(0.25f, NAN, mx::bfloat16));
}

} // namespace
} // namespace zmlx
