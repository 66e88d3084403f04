// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/quantization.h"

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/model/checkpoint/checkpoint.h"

namespace zmlx {
namespace {

QuantizationTable read(const std::string& config) {
  return read_quantization(parse_json(config, "c"), "c");
}

std::string message_of(const std::string& config) {
  try {
    read(config);
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

TEST(Quantization, ReadsTheBlockAndItsOverrides) {
  const auto table = read(R"({"quantization":{"group_size":32,"bits":6,
      "mode":"affine","note":"x","count":3,
      "a.gate":{"group_size":64,"bits":8},"a.up":false,"a.down":true,
      "a.mx":{"mode":"mxfp8"}}})");
  EXPECT_EQ(table.standard, (Quantization{6, 32, "affine"}));
  ASSERT_EQ(table.layers.size(), 4u);
  EXPECT_EQ(table.layers.at("a.gate"), (Quantization{8, 64, "affine"}));
  EXPECT_FALSE(table.layers.at("a.up").has_value());
  EXPECT_EQ(table.layers.at("a.down"), table.standard);
  EXPECT_EQ(table.layers.at("a.mx"), (Quantization{8, 32, "mxfp8"}));
}

TEST(Quantization, FillsWhatIsMissingFromTheMode) {
  const auto standard = [](const std::string& block) {
    return *read("{\"quantization\":" + block + "}").standard;
  };
  EXPECT_EQ(standard("{}"), (Quantization{4, 64, "affine"}));
  EXPECT_EQ(standard(R"({"bits":8})"), (Quantization{8, 64, "affine"}));
  EXPECT_EQ(standard(R"({"mode":"mxfp4"})"), (Quantization{4, 32, "mxfp4"}));
  EXPECT_EQ(standard(R"({"mode":"nvfp4"})"), (Quantization{4, 16, "nvfp4"}));
  EXPECT_EQ(
      standard(R"({"mode":"mxfp8","bits":null,"group_size":null})"),
      (Quantization{8, 32, "mxfp8"}));
}

TEST(Quantization, ALayersEntryDoesNotInheritTheModelsMode) {
  // As in mlx_lm, whose gates in mxfp4 models are affine.
  const auto table = read(
      R"({"quantization":{"mode":"mxfp4","a":{"bits":8,"group_size":64}}})");
  EXPECT_EQ(table.layers.at("a"), (Quantization{8, 64, "affine"}));
}

TEST(Quantization, ReadsQuantizationConfigOnlyInMlxsForm) {
  EXPECT_FALSE(read("{}").standard.has_value());
  EXPECT_FALSE(read(R"({"quantization":null})").standard.has_value());
  EXPECT_FALSE(read(R"({"quantization_config":null})").standard.has_value());
  EXPECT_EQ(
      read(R"({"quantization_config":{"bits":8,"group_size":32}})").standard,
      (Quantization{8, 32, "affine"}));
  // The MLX block rules where a converted model kept the other.
  EXPECT_EQ(
      read(R"({"quantization_config":{"quant_method":"mxfp4"},
          "quantization":{"bits":5}})")
          .standard,
      (Quantization{5, 64, "affine"}));
  for (const char* method : {"awq", "gptq", "bitsandbytes", "fp8"}) {
    EXPECT_EQ(
        message_of(concat(
            R"({"quantization_config":{"bits":4,"quant_method":")",
            method,
            "\"}}")),
        concat(
            "c: weights must be quantised by MLX or not at all, got a "
            "quantization_config of another tool (quant_method \"",
            method,
            "\"). Try: mlx_lm.convert -q on the unquantised model."));
  }
  EXPECT_NE(
      message_of(R"({"quantization_config":{"load_in_4bit":true}})")
          .find("quant_method none named"),
      std::string::npos);
}

TEST(Quantization, RefusesWhatMlxLacks) {
  const auto says = [](const std::string& block) {
    return message_of("{\"quantization\":" + block + "}");
  };
  const std::string at = "c: quantization: ";
  EXPECT_EQ(
      says(R"({"bits":7})"),
      at + "affine bits must be 2, 3, 4, 5, 6 or 8, got 7.");
  EXPECT_EQ(
      says(R"({"group_size":16})"),
      at + "affine group_size must be 32, 64 or 128, got 16.");
  EXPECT_EQ(
      says(R"({"mode":"mxfp4","group_size":64})"),
      at + "mxfp4 must have bits 4 and group_size 32, got 4 and 64.");
  EXPECT_EQ(
      says(R"({"mode":"int4"})"),
      at +
          "quantization mode must be affine, mxfp4, mxfp8 or nvfp4, got "
          "'int4'.");
  EXPECT_EQ(says(R"({"mode":4})"), at + "'mode' must be a string, got 4.");
  for (const char* bad : {"-4", "4.5", "\"4\"", "99999999999", "true"}) {
    EXPECT_EQ(
        says(concat("{\"bits\":", bad, "}")),
        concat(at, "'bits' must be a small integer, got ", bad, "."));
  }
  EXPECT_EQ(
      says(R"({"a.b":{"bits":1}})"),
      "c: quantization of 'a.b': affine bits must be 2, 3, 4, 5, 6 or 8, got "
      "1.");
  EXPECT_EQ(says("4"), "c: 'quantization' must be an object, got 4.");
}

class Packed : public ::testing::Test {
 protected:
  // A layer "a" of 128 inputs and 8 outputs as `packing` would store it, and a
  // plain layer "b".
  Checkpoint open(const std::string& config, const Quantization& packing) {
    write_file(folder_.file("config.json"), config);
    auto parts = mx::quantize(
        mx::random::normal({8, 128}),
        packing.group_size,
        packing.bits,
        packing.mode);
    std::vector<std::pair<std::string, mx::array>> tensors = {
        {"a.weight", parts[0]},
        {"a.scales", parts[1]},
        {"b.weight", mx::zeros({8, 128})}};
    if (parts.size() > 2) {
      tensors.push_back({"a.biases", parts[2]});
    }
    save_safetensors(folder_.file("model.safetensors"), tensors);
    return Checkpoint::open(folder_.path());
  }
  static std::string message_of(const Checkpoint& checkpoint) {
    try {
      checkpoint.quantization_of("a");
    } catch (const FileError& error) {
      return error.what();
    }
    return "";
  }

  TemporaryFolder folder_;
};

TEST_F(Packed, EveryPackingOfMlxIsTaken) {
  std::vector<Quantization> all = {
      {4, 32, "mxfp4"}, {4, 16, "nvfp4"}, {8, 32, "mxfp8"}};
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int group : {32, 64, 128}) {
      all.push_back({bits, group, "affine"});
    }
  }
  for (const auto& packing : all) {
    const auto checkpoint = open(
        concat(
            "{\"quantization\":{\"bits\":",
            packing.bits,
            ",\"group_size\":",
            packing.group_size,
            ",\"mode\":\"",
            packing.mode,
            "\"}}"),
        packing);
    EXPECT_EQ(checkpoint.quantization_of("a"), packing) << packing.bits;
    EXPECT_FALSE(checkpoint.quantization_of("b").has_value());
    EXPECT_FALSE(checkpoint.quantization_of("none").has_value());
  }
}

TEST_F(Packed, AnOverrideRulesOverTheBlock) {
  const Quantization eight{8, 64, "affine"};
  EXPECT_EQ(
      open(
          R"({"quantization":{"bits":4,"a":{"bits":8,"group_size":64}}})",
          eight)
          .quantization_of("a"),
      eight);
  EXPECT_FALSE(open(R"({"quantization":{"bits":4,"a":false}})", eight)
                   .quantization_of("a")
                   .has_value());
}

TEST_F(Packed, RefusesTensorsThatDoNotFitTheBlock) {
  const Quantization four{4, 64, "affine"};
  EXPECT_NE(
      message_of(open("{}", four))
          .find(
              "config.json must have a 'quantization' block, since "
              "'a.scales' is there."),
      std::string::npos);
  EXPECT_NE(
      message_of(open(R"({"quantization":{"bits":8}})", four))
          .find(
              "'a' of 8 bits in groups of 64 must have weight and scales for "
              "the same inputs, got (8,16) and (8,2)."),
      std::string::npos);
  EXPECT_NE(
      message_of(open(R"({"quantization":{"mode":"mxfp4"}})", four))
          .find("'a' of mode mxfp4 must have uint32 weights and uint8 scales"),
      std::string::npos);
  EXPECT_NE(
      message_of(open(R"({"quantization":{}})", {4, 32, "mxfp4"}))
          .find("'a' of mode affine must have uint32 weights and float scales"),
      std::string::npos);
}

TEST_F(Packed, RefusesMissingOrMisshapenBiases) {
  write_file(folder_.file("config.json"), R"({"quantization":{"bits":4}})");
  const auto save = [&](const mx::Shape& scales, const mx::Shape& biases) {
    save_safetensors(
        folder_.file("model.safetensors"),
        {{"a.weight", mx::zeros({8, 16}, mx::uint32)},
         {"a.scales", mx::zeros(scales)},
         {"a.biases", mx::zeros(biases)}});
    return message_of(Checkpoint::open(folder_.path()));
  };
  EXPECT_EQ(save({8, 2}, {8, 2}), "");
  EXPECT_NE(
      save({8, 2}, {8, 1}).find("biases shaped as its scales (8,2), got (8,1)"),
      std::string::npos);
  EXPECT_NE(save({4, 2}, {4, 2}).find("the same inputs"), std::string::npos);
  EXPECT_NE(save({}, {}).find("the same inputs"), std::string::npos);
  save_safetensors(
      folder_.file("model.safetensors"),
      {{"a.weight", mx::zeros({8, 16}, mx::uint32)},
       {"a.scales", mx::zeros({8, 2})}});
  EXPECT_NE(
      message_of(Checkpoint::open(folder_.path()))
          .find("must hold a tensor 'a.biases'"),
      std::string::npos);
}

} // namespace
} // namespace zmlx
