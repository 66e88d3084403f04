// SPDX-License-Identifier: MIT
// The pattern norm_qkv on the demo model: attention and convolutions.
#include <gtest/gtest.h>

#include "zmlx/model/model.h"
#include "zmlx/model/patch/fused.h"
#include "zmlx/model/patch/patch.h"
#include "zmlx/model/patch/probe.h"

namespace zmlx {
namespace {

std::unique_ptr<Model> demo() {
  LoadOptions options;
  options.skip_tokenizer = true;
  return load(ZMLX_SOURCE_DIR "/models/demo", options);
}

/// Logits of the last token of a prompt, then of a step of two sequences.
mx::array run(Model& model) {
  auto cache = model.network->make_cache();
  const auto prompt = mx::array({5, 9, 200, 31, 7, 400, 3, 77}, {2, 4});
  const auto first = model.network->forward(prompt, cache, true);
  const auto step =
      model.network->forward(mx::array({8, 90}, {2, 1}), cache, true);
  auto both = mx::concatenate({first, step}, 1);
  mx::eval(both);
  return both;
}

double apart(const mx::array& got, const mx::array& want) {
  return mx::max(mx::abs(got - want)).item<float>() /
      mx::max(mx::abs(want)).item<float>();
}

TEST(NormQkvPattern, EqualsStockInEveryLayerAndIsTakenBack) {
  const auto model = demo();
  const auto stock = run(*model);
  const auto done = patch(*model, {.patterns = {"norm_qkv"}});
  EXPECT_EQ(done.counts().at("norm_qkv"), model->info.num_layers);
  EXPECT_TRUE(done.skipped.empty()) << done.summary();
  EXPECT_LT(apart(run(*model), stock), 1e-4);
  EXPECT_TRUE(
      patch(*model, {.patterns = {"norm_qkv"}}).installed.empty()); // again
  // Norms and projections may be fused on their own beside it.
  const auto more =
      patch(*model, {.patterns = {"rmsnorm", "quantized_linear"}});
  EXPECT_GT(more.counts().at("quantized_linear"), 0);
  EXPECT_LT(apart(run(*model), stock), 1e-4);
  unpatch(*model);
  EXPECT_TRUE(mx::array_equal(run(*model), stock).item<bool>());
}

TEST(NormQkvPattern, MayStandBesideTheDecodeStep) {
  const auto model = demo();
  const auto stock = run(*model);
  const auto done = patch(*model, {.patterns = {"norm_qkv", "decode_step"}});
  EXPECT_EQ(done.counts().at("decode_step"), 1) << done.summary();
  EXPECT_EQ(done.counts().at("norm_qkv"), model->info.num_layers);
  EXPECT_LT(apart(run(*model), stock), 1e-4);
}

TEST(NormQkvPattern, IsLeftOutUnlessNamed) {
  const auto model = demo();
  const auto done = patch(*model, {.exclude = {"decode_step"}});
  EXPECT_EQ(done.counts().count("norm_qkv"), 0u) << done.summary();
}

/// The fused mixer, but it hands on what was not normalised.
struct WithoutNorm : Mixer {
  explicit WithoutNorm(const Mixer& fused) : fused(fused) {}
  std::string_view kind() const override {
    return "WithoutNorm";
  }
  mx::array forward(const mx::array& x, LayerCache* cache) const override {
    return fused.forward(x, cache);
  }
  mx::array forward_normed(const Layer&, const mx::array& x, LayerCache* cache)
      const override {
    return fused.forward(x, cache);
  }
  const Mixer& fused;
};

TEST(NormQkvPattern, IsRefusedWhereItIsWrong) {
  const auto model = demo();
  int mixers = 0;
  walk(*model->network, [&](const std::string& path, Child& child) {
    auto* slot = std::get_if<MixerSlot*>(&child.slot);
    if (!slot) {
      return;
    }
    const Mixer& stock = ***slot;
    const auto fused = fuse_norm_qkv(**slot, mx::float32).mixer;
    ASSERT_TRUE(fused) << path;
    const bool attends = stock.kind() == "Attention";
    const int width = model->info.width;
    EXPECT_TRUE(probe(stock, *fused, width, attends, mx::float32).passed());
    EXPECT_FALSE(
        probe(stock, WithoutNorm(*fused), width, attends, mx::float32).passed())
        << path;
    ++mixers;
  });
  EXPECT_EQ(mixers, model->info.num_layers);
}

} // namespace
} // namespace zmlx
