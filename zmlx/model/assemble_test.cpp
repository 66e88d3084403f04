// SPDX-License-Identifier: MIT
// A network of arrays in memory against the same one read from its files.
#include "zmlx/model/assemble.h"

#include <gtest/gtest.h>

#include "tests/demo_model.h"
#include "zmlx/base/error.h"
#include "zmlx/model/patch/patch.h"

namespace zmlx {
namespace {

ModelParts parts_of_demo() {
  const auto checkpoint = Checkpoint::open(kDemo);
  ModelParts parts;
  parts.config = checkpoint.config().dump();
  for (const auto& name : checkpoint.names()) {
    parts.tensors.emplace(name, checkpoint.tensor(name));
    if (name.ends_with(".scales")) {
      const auto path = name.substr(0, name.size() - 7);
      parts.packing[path] = *checkpoint.quantization_of(path);
    }
  }
  return parts;
}

mx::array logits(Model& model) {
  const std::vector<int> ids = {5, 9, 200, 31};
  Cache none;
  return model.network->forward(
      mx::array(ids.begin(), {1, 4}, mx::int32), none);
}

TEST(Assemble, GivesTheNetworkOfTheSameFiles) {
  LoadOptions options;
  options.skip_tokenizer = true;
  auto loaded = load(kDemo, options);
  auto assembled = assemble(parts_of_demo(), mx::float32);
  EXPECT_EQ(assembled->info.family, "lfm2_moe");
  EXPECT_TRUE(
      mx::array_equal(logits(*loaded), logits(*assembled)).item<bool>());
}

TEST(Assemble, IsPatchedWithoutProbesToTheSameModules) {
  auto probed = assemble(parts_of_demo(), mx::float32);
  auto unprobed = assemble(parts_of_demo(), mx::float32);
  const auto expected = patch(*probed).counts();
  EXPECT_EQ(patch_unprobed(*unprobed).counts(), expected);
  EXPECT_EQ(expected.at("decode_step"), 1);
  EXPECT_TRUE(mx::array_equal(logits(*probed), logits(*unprobed)).item<bool>());
}

TEST(Assemble, SharesTheArrays) {
  auto parts = parts_of_demo();
  const auto table = parts.tensors.at("model.embed_tokens.weight");
  auto model = assemble(std::move(parts), mx::float32);
  const auto& weight = model->network->backbone()->embedding->weight;
  EXPECT_EQ(std::get<PackedWeight>(weight).packed.id(), table.id());
}

TEST(Assemble, RejectsATensorTooManyOrTooFew) {
  auto parts = parts_of_demo();
  parts.tensors.emplace("model.layers.0.lora_a", mx::zeros({2, 2}));
  EXPECT_THROW(assemble(parts, mx::float32), FileError);
  parts = parts_of_demo();
  parts.tensors.erase("model.embedding_norm.weight");
  EXPECT_THROW(assemble(parts, mx::float32), FileError);
}

TEST(Assemble, RejectsAnUnknownFamilyAndPacking) {
  auto parts = parts_of_demo();
  parts.config = R"({"model_type": "lfm3"})";
  EXPECT_THROW(assemble(parts, mx::float32), std::invalid_argument);
  parts = parts_of_demo();
  parts.packing.clear();
  EXPECT_THROW(assemble(parts, mx::float32), FileError);
}

} // namespace
} // namespace zmlx
