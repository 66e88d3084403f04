// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/synth.h"

#include <cmath>
#include <csignal>

#include <sys/resource.h>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/model/checkpoint/checkpoint.h"
#include "zmlx/model/checkpoint/synth_shapes.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTiny = "lfm2-moe-tiny";

std::string message_of(
    const std::string& shape,
    const std::string& out,
    const SynthOptions& options = {}) {
  try {
    synth(shape, out, options);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

SynthOptions packed(const std::string& mode, int bits, int group) {
  SynthOptions options;
  options.mode = mode;
  options.bits = bits;
  options.group_size = group;
  return options;
}

mx::array values_of(const Checkpoint& model, const std::string& path) {
  const auto packing = *model.quantization_of(path);
  const bool affine = packing.mode == "affine";
  return mx::astype(
      mx::dequantize(
          model.tensor(path + ".weight"),
          model.tensor(path + ".scales"),
          affine ? std::optional(model.tensor(path + ".biases")) : std::nullopt,
          packing.group_size,
          packing.bits,
          packing.mode),
      mx::float32);
}

TEST(Synth, WritesAModelThatOpens) {
  const TemporaryFolder folder;
  const std::string out = folder.file("m");
  uint64_t last = 0, total = 0;
  SynthOptions options;
  options.progress = [&](uint64_t done, uint64_t all) {
    EXPECT_GE(done, last);
    last = done;
    total = all;
  };
  const uint64_t bytes = synth(kTiny, out, options);
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 0u);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"m"});
  const Checkpoint model = Checkpoint::open(out);
  EXPECT_EQ(model.files().size(), 1u);
  EXPECT_EQ(
      bytes,
      fs::file_size(out + "/model.safetensors") +
          fs::file_size(out + "/config.json"));
  EXPECT_EQ(model.quantization(), (Quantization{4, 64, "affine"}));
  EXPECT_EQ(
      model.quantization_of("model.layers.1.feed_forward.gate"),
      (Quantization{8, 64, "affine"}));
  EXPECT_EQ(
      model.quantization_of("model.layers.1.feed_forward.switch_mlp.up_proj"),
      model.quantization());
  EXPECT_EQ(
      model.info("model.layers.1.feed_forward.expert_bias").dtype, mx::float32);
  EXPECT_EQ(
      model.info("model.layers.0.conv.conv.weight").shape,
      (mx::Shape{128, 3, 1}));
  EXPECT_TRUE(model.has("model.layers.2.self_attn.q_layernorm.weight"));
}

TEST(Synth, OnlyTheSeedDecidesTheBytes) {
  const TemporaryFolder folder;
  const auto hash = [&](const std::string& name, uint64_t seed) {
    SynthOptions options;
    options.seed = seed;
    synth(kTiny, folder.file(name), options);
    return Checkpoint::open(folder.file(name)).hash();
  };
  const std::string first = hash("a", 1);
  EXPECT_EQ(hash("b", 1), first);
  EXPECT_NE(hash("c", 2), first);
  EXPECT_EQ(
      read_file(folder.file("a/model.safetensors")),
      read_file(folder.file("b/model.safetensors")));
}

TEST(Synth, ValuesAreSpreadAlikeInEveryPacking) {
  const TemporaryFolder folder;
  int count = 0;
  for (const auto& options :
       {packed("affine", 2, 32),
        packed("affine", 3, 64),
        packed("affine", 4, 64),
        packed("affine", 5, 128),
        packed("affine", 6, 64),
        packed("affine", 8, 64),
        packed("mxfp4", 4, 32),
        packed("nvfp4", 4, 16),
        packed("mxfp8", 8, 32)}) {
    const std::string out = folder.file(concat(count++));
    synth(kTiny, out, options);
    const Checkpoint model = Checkpoint::open(out);
    const auto values =
        values_of(model, "model.layers.1.feed_forward.switch_mlp.down_proj");
    const double deviation = mx::std(values).item<float>();
    double wanted = 1 / std::sqrt(3.0 * 128);
    if (options.mode == "affine") { // few codes, evenly spaced over the range
      const double codes = 1 << *options.bits;
      wanted *= std::sqrt((codes + 1) / (codes - 1));
    }
    // Scales of the mx modes are powers of two.
    EXPECT_NEAR(deviation / wanted, 1, options.mode == "affine" ? 0.03 : 0.15)
        << options.mode << ' ' << *options.bits;
    EXPECT_LT(std::abs(mx::mean(values).item<float>()), 0.03 * wanted);
    const auto norm =
        mx::astype(model.tensor("model.embedding_norm.weight"), mx::float32);
    EXPECT_NEAR(mx::mean(norm).item<float>(), 1, 0.05);
    EXPECT_NEAR(mx::std(norm).item<float>(), 0.1, 0.03);
  }
}

TEST(Synth, SplitsIntoFilesWithAnIndex) {
  const TemporaryFolder folder;
  synth(kTiny, folder.file("one"));
  SynthOptions options;
  options.max_shard_bytes = 200000;
  synth(kTiny, folder.file("many"), options);
  const Checkpoint one = Checkpoint::open(folder.file("one"));
  const Checkpoint many = Checkpoint::open(folder.file("many"));
  EXPECT_GT(many.files().size(), 2u);
  EXPECT_TRUE(fs::exists(folder.file("many/model.safetensors.index.json")));
  EXPECT_FALSE(fs::exists(folder.file("one/model.safetensors.index.json")));
  for (const auto& file : many.files()) {
    EXPECT_LE(fs::file_size(file), 200000u + 20000u) << file;
  }
  ASSERT_EQ(one.names(), many.names());
  for (const auto& name : one.names()) {
    EXPECT_TRUE(
        mx::array_equal(one.tensor(name), many.tensor(name)).item<bool>())
        << name;
  }
}

TEST(Synth, CanLeaveOutTheLastLayers) {
  const TemporaryFolder folder;
  SynthOptions options;
  options.layers = 3;
  synth(kTiny, folder.file("m"), options);
  const Checkpoint model = Checkpoint::open(folder.file("m"));
  EXPECT_EQ(model.config().at("num_hidden_layers"), 3);
  EXPECT_EQ(model.config().at("layer_types").size(), 3u);
  EXPECT_FALSE(model.has("model.layers.3.ffn_norm.weight"));
  options.layers = 1;
  synth("qwen3-moe-tiny", folder.file("q"), options);
  const Checkpoint qwen = Checkpoint::open(folder.file("q"));
  EXPECT_EQ(qwen.config().at("num_hidden_layers"), 1);
  EXPECT_TRUE(qwen.has("lm_head.scales"));
  EXPECT_FALSE(qwen.has("model.layers.1.mlp.gate.weight"));
}

uint64_t parameters_of(const SynthModel& model) {
  uint64_t parameters = 0;
  for (const auto& weight : model.weights) {
    uint64_t count = 1;
    for (const auto dim : weight.shape) {
      count *= static_cast<uint64_t>(dim);
    }
    parameters += count;
  }
  return parameters;
}

TEST(Synth, TheLargeShapesHaveTheRealModelsSizes) {
  const auto& table = synth_shape_table();
  const SynthModel dense = table[0].make(16, {4, 64, "affine"});
  EXPECT_EQ(parameters_of(dense), 1170340608u);
  const SynthModel experts = table[1].make(24, {4, 64, "affine"});
  EXPECT_EQ(parameters_of(experts), 8339930560u);
  EXPECT_EQ(experts.config.at("layer_types").at(21), "full_attention");
  const SynthModel qwen = table[3].make(48, {4, 64, "affine"});
  EXPECT_EQ(parameters_of(qwen), 30532122624u);
  EXPECT_EQ(qwen.config.at("tie_word_embeddings"), false);
}

TEST(Synth, RefusesBadOptions) {
  const TemporaryFolder folder;
  const std::string out = folder.file("m");
  EXPECT_EQ(
      message_of("lfm2-moe-tyni", out),
      "[synth] shape must be one of lfm2-1.2b, lfm2-8b-a1b, "
      "lfm2-moe-tiny, qwen3-30b-a3b, qwen3-moe-tiny, got "
      "'lfm2-moe-tyni'. Did you mean 'lfm2-moe-tiny'?");
  EXPECT_EQ(
      message_of(kTiny, out, packed("affine", 7, 64)),
      "[synth] affine bits must be 2, 3, 4, 5, 6 or 8, got 7.");
  EXPECT_NE(message_of(kTiny, out, packed("fp4", 4, 64)), "");
  SynthOptions options;
  options.layers = 2;
  EXPECT_EQ(
      message_of(kTiny, out, options),
      "[synth] layers of lfm2-moe-tiny must be 3..4, got 2.");
  EXPECT_TRUE(folder.empty());
}

TEST(Synth, LeavesNothingBehindWhenItFails) {
  const TemporaryFolder folder;
  SynthOptions options;
  options.progress = [](uint64_t, uint64_t) {
    throw std::runtime_error("stop");
  };
  EXPECT_EQ(message_of(kTiny, folder.file("m"), options), "stop");
  EXPECT_TRUE(folder.empty());
}

TEST(Synth, AFailedWriteIsNamedAndLeavesNothingBehind) {
  const TemporaryFolder folder;
  struct rlimit before;
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small{100000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string what = message_of(kTiny, folder.file("m"));
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(what.find("cannot be written: File too large"), std::string::npos)
      << what;
  EXPECT_TRUE(folder.empty());
}

TEST(Synth, NeverWritesOverAnything) {
  const TemporaryFolder folder;
  fs::create_directory(folder.file("m"));
  EXPECT_EQ(message_of(kTiny, folder.file("m/")), ""); // empty is fine
  EXPECT_NE(
      message_of(kTiny, folder.file("m"))
          .find("must not exist or be an empty folder."),
      std::string::npos);
  fs::create_directory(folder.file("n.partial"));
  EXPECT_NE(
      message_of(kTiny, folder.file("n")).find("n.partial: must not exist"),
      std::string::npos);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"m", "n.partial"}));
}

TEST(Synth, ChecksTheDiskFirst) {
  const TemporaryFolder folder;
  EXPECT_NO_THROW(check_disk_space(folder.path(), 1, "m"));
  try {
    check_disk_space(folder.path(), uint64_t(1) << 60, "m");
    FAIL();
  } catch (const FileError& error) {
    EXPECT_EQ(
        std::string(error.what())
            .rfind("m: must have 1152921.50 TB of free disk space, got ", 0),
        0u)
        << error.what();
  }
}

} // namespace
} // namespace zmlx
