// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/checkpoint.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/model/checkpoint/mapped_array.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "model.safetensors.index.json";

class Checkpoints : public ::testing::Test {
 protected:
  void config(const std::string& text) {
    write_file(folder_.file("config.json"), text);
  }
  void weights(
      const std::string& name,
      const std::vector<std::pair<std::string, mx::array>>& tensors) {
    save_safetensors(folder_.file(name), tensors);
  }
  void index(const std::string& map) {
    write_file(folder_.file(kIndex), "{\"weight_map\":" + map + "}");
  }
  // Two files, one tensor each.
  void two_files() {
    config("{}");
    weights("model-00001-of-00002.safetensors", {{"a", mx::full({2}, 1.0f)}});
    weights("model-00002-of-00002.safetensors", {{"b", mx::full({3}, 2.0f)}});
  }
  Checkpoint open() const {
    return Checkpoint::open(folder_.path());
  }
  // What opening says, without the folder's path.
  std::string message() const {
    try {
      open();
    } catch (const FileError& error) {
      std::string what = error.what();
      const std::string path = folder_.path();
      if (what.rfind(path, 0) == 0) {
        what.erase(0, path.size());
      }
      return what;
    }
    return "";
  }

  TemporaryFolder folder_;
};

TEST_F(Checkpoints, ReadsOneFile) {
  config(R"({"model_type":"x","hidden_size":8})");
  weights(
      "model.safetensors",
      {{"b", mx::zeros({2, 3}, mx::bfloat16)}, {"a", mx::full({4}, 7)}});
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.config().at("hidden_size"), 8);
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(checkpoint.total_bytes(), 12u + 16u);
  EXPECT_EQ(checkpoint.files().size(), 1u);
  EXPECT_TRUE(checkpoint.has("a"));
  EXPECT_FALSE(checkpoint.has("c"));
  EXPECT_EQ(checkpoint.info("b").shape, (mx::Shape{2, 3}));
  EXPECT_EQ(checkpoint.tensor("b").dtype(), mx::bfloat16);
  EXPECT_TRUE(
      mx::array_equal(checkpoint.tensor("a"), mx::full({4}, 7)).item<bool>());
  EXPECT_FALSE(checkpoint.quantization().has_value());
  EXPECT_TRUE(checkpoint.eos_ids().empty());
}

TEST_F(Checkpoints, TellsWhereATensorLiesInItsFile) {
  two_files();
  const Checkpoint checkpoint = open();
  for (const std::string name : {"a", "b"}) {
    const auto tensor = checkpoint.tensor(name);
    const auto place = checkpoint.place_of(tensor);
    ASSERT_TRUE(place.has_value());
    std::vector<float> values(tensor.size());
    place->file->read(
        place->offset, tensor.nbytes(), reinterpret_cast<char*>(values.data()));
    EXPECT_EQ(values, std::vector<float>(tensor.size(), name == "a" ? 1 : 2));
  }
  const auto other = mx::full({2}, 1.0f);
  mx::eval(other);
  EXPECT_FALSE(checkpoint.place_of(other).has_value());
}

TEST_F(Checkpoints, ReadWhatIsNotAlignedWhenItIsEvaluated) {
  if (!buffer_header_bytes()) {
    GTEST_SKIP() << "this MLX copies mapped arrays";
  }
  config("{}");
  // A header of 61 bytes, and 8 before it.
  const std::string header =
      R"({"a":{"dtype":"U32","shape":[1],"data_offsets":[0,4]}}       )";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  ASSERT_EQ(header.size() % 4, 1u);
  write_file(folder_.file("model.safetensors"), bytes + header + "abcd");
  const Checkpoint checkpoint = open();
  mx::array a = checkpoint.tensor("a");
  EXPECT_FALSE(a.is_available());
  const auto place = checkpoint.place_of(a);
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->file->text().substr(place->offset), "abcd");
  EXPECT_EQ(a.item<uint32_t>(), 0x64636261u);
  EXPECT_FALSE(checkpoint.place_of(a).has_value()); // it has its own memory now
  EXPECT_TRUE(checkpoint.place_of(checkpoint.tensor("a")).has_value());
}

TEST_F(Checkpoints, ATensorOutlivesTheCheckpoint) {
  config("{}");
  weights("model.safetensors", {{"a", mx::full({1000}, 7)}});
  const mx::array a = open().tensor("a");
  EXPECT_EQ(mx::sum(a).item<int>(), 7000);
}

TEST_F(Checkpoints, AMissingTensorIsNamedWithTheNearest) {
  config("{}");
  weights("model.safetensors", {{"model.norm.weight", mx::zeros({1})}});
  try {
    open().tensor("model.norm.weigth");
    FAIL();
  } catch (const FileError& error) {
    EXPECT_NE(
        std::string(error.what())
            .find(
                "must hold a tensor 'model.norm.weigth', but has none of 1 "
                "by that name. Did you mean 'model.norm.weight'?"),
        std::string::npos)
        << error.what();
  }
}

TEST_F(Checkpoints, ReadsManyFilesWithAndWithoutIndex) {
  two_files();
  weights("other.safetensors", {{"a", mx::zeros({1})}}); // not ours to read
  EXPECT_EQ(open().names(), (std::vector<std::string>{"a", "b"}));
  index(
      R"({"b":"model-00002-of-00002.safetensors",)"
      R"("a":"model-00001-of-00002.safetensors"})");
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.files().size(), 2u);
  EXPECT_EQ(mx::sum(checkpoint.tensor("b")).item<float>(), 6);
}

TEST_F(Checkpoints, RefusesAnIndexThatDoesNotAgree) {
  two_files();
  const std::string a = R"("a":"model-00001-of-00002.safetensors")";
  const std::string b = R"("b":"model-00002-of-00002.safetensors")";
  const auto says = [&](const std::string& map) {
    index(map);
    return message();
  };
  const std::string at = concat('/', kIndex, ": ");
  for (const char* name :
       {"../x.safetensors",
        "/etc/passwd",
        "sub/model.safetensors",
        "..",
        "",
        R"(a\\b)",
        R"(a\u0000b)"}) {
    EXPECT_EQ(
        says(concat("{", b, ",\"a\":\"", name, "\"}"))
            .rfind(
                at + "weight_map must name files of this folder only, got", 0),
        0u)
        << name << ": " << message();
  }
  EXPECT_EQ(
      says(concat("{", b, R"(,"a":"model-3.safetensors"})")),
      at +
          "every file of weight_map must exist, got 'model-3.safetensors', "
          "which is missing. Try: download the model again.");
  EXPECT_EQ(
      says(concat("{", b, R"(,"a":"model-00002-of-00002.safetensors"})")),
      at +
          "weight_map must agree with the files, got "
          "'model-00002-of-00002.safetensors' for 'a', which is in "
          "model-00001-of-00002.safetensors.");
  EXPECT_EQ(
      says(concat(
          "{", a, ",", b, R"(,"c":"model-00002-of-00002.safetensors"})")),
      at +
          "weight_map must agree with the files, got "
          "'model-00002-of-00002.safetensors' for 'c', which is in no "
          "model*.safetensors.");
  EXPECT_EQ(
      says(concat("{", a, "}")),
      at +
          "weight_map must name every tensor, but 'b' of "
          "model-00002-of-00002.safetensors is missing.");
  EXPECT_EQ(
      says(concat("{", a, R"(,"b":2})")),
      at + "weight_map must give a file name for 'b', got number.");
  EXPECT_EQ(says("[]"), at + "must hold an object 'weight_map'.");
  EXPECT_NE(says(concat("{", a, ",", a, "}")).find("stands twice"), SIZE_MAX);
  write_file(folder_.file(kIndex), "[1]");
  EXPECT_EQ(message(), at + "must hold a JSON object, got array.");
  write_file(folder_.file(kIndex), "{");
  EXPECT_NE(message().find("not valid JSON"), std::string::npos);
}

TEST_F(Checkpoints, RefusesATensorInTwoFiles) {
  two_files();
  weights("model.safetensors", {{"b", mx::zeros({1})}});
  EXPECT_EQ(
      message(),
      ": each tensor must stand in one file, got 'b' in "
      "model-00002-of-00002.safetensors and model.safetensors.");
}

TEST_F(Checkpoints, FollowsTheLinksOfTheHubCache) {
  const std::string blobs = folder_.file("blobs");
  const std::string snapshot = folder_.file("snapshots/abc");
  fs::create_directories(blobs);
  fs::create_directories(snapshot);
  write_file(blobs + "/1", "{}");
  save_safetensors(blobs + "/2", {{"a", mx::full({2}, 3.0f)}});
  fs::create_symlink("../../blobs/1", snapshot + "/config.json");
  fs::create_symlink("../../blobs/2", snapshot + "/model.safetensors");
  const Checkpoint checkpoint = Checkpoint::open(snapshot);
  EXPECT_EQ(mx::sum(checkpoint.tensor("a")).item<float>(), 6);
}

TEST_F(Checkpoints, SaysWhatAFolderLacks) {
  EXPECT_EQ(message(), ": holds no config.json.");
  config("{}");
  EXPECT_EQ(message(), ": holds no model*.safetensors.");
  write_file(folder_.file("weights.gguf"), "");
  EXPECT_EQ(
      message(),
      ": holds no model*.safetensors. It holds 'weights.gguf', another format. "
      "Try: mlx_lm.convert on the original model.");
  fs::create_directory(folder_.file("model.safetensors"));
  EXPECT_EQ(message(), "/model.safetensors: must be a regular file.");
  fs::remove(folder_.file("model.safetensors"));
  fs::create_symlink("nowhere", folder_.file("model.safetensors"));
  EXPECT_NE(message().find("cannot be opened"), std::string::npos);
  try {
    Checkpoint::open(folder_.file("none"));
    FAIL();
  } catch (const FileError& error) {
    EXPECT_NE(
        std::string(error.what()).find("must be a folder that holds a model."),
        std::string::npos);
  }
}

TEST_F(Checkpoints, RefusesConfigurationsThatItCannotServe) {
  weights("model.safetensors", {{"a", mx::zeros({1})}});
  config("[]");
  EXPECT_EQ(message(), "/config.json: must hold a JSON object, got array.");
  config(R"({"model_file":"model.py"})");
  EXPECT_EQ(
      message(),
      "/config.json: must describe a built-in model family, got 'model_file' "
      "\"model.py\", Python code that is never run.");
  config(R"({"model_file":null})");
  EXPECT_EQ(message(), "");
}

TEST_F(Checkpoints, TakesEndTokensFromGenerationConfigFirst) {
  weights("model.safetensors", {{"a", mx::zeros({1})}});
  config(R"({"eos_token_id":7})");
  EXPECT_EQ(open().eos_ids(), std::vector<int>{7});
  const std::string path = folder_.file("generation_config.json");
  write_file(path, R"({"eos_token_id":[2,3]})");
  EXPECT_EQ(open().eos_ids(), (std::vector<int>{2, 3}));
  write_file(path, R"({"eos_token_id":0})");
  EXPECT_EQ(open().eos_ids(), std::vector<int>{0});
  write_file(path, R"({"temperature":1})");
  EXPECT_EQ(open().eos_ids(), std::vector<int>{7});
  for (const char* bad : {"-1", "\"x\"", "[1,null]", "1.5", "99999999999"}) {
    write_file(path, concat("{\"eos_token_id\":", bad, "}"));
    EXPECT_NE(
        message().find("eos_token_id must be a token id or a list of them"),
        std::string::npos)
        << bad;
  }
}

TEST_F(Checkpoints, HashFollowsConfigHeaderNamesAndData) {
  config("{}");
  weights("model.safetensors", {{"a", mx::zeros({1 << 20})}});
  const std::string first = open().hash();
  EXPECT_EQ(first.size(), 32u);
  EXPECT_EQ(first.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(open().hash(), first);
  config("{ }");
  EXPECT_NE(open().hash(), first);
  config("{}");
  weights("model.safetensors", {{"b", mx::zeros({1 << 20})}});
  EXPECT_NE(open().hash(), first);
  weights("model.safetensors", {{"a", mx::ones({1 << 20})}});
  EXPECT_NE(open().hash(), first);
  // The very last value lies in the last sampled block.
  const auto last =
      mx::concatenate({mx::zeros({(1 << 20) - 1}), mx::ones({1})});
  weights("model.safetensors", {{"a", last}});
  EXPECT_NE(open().hash(), first);
  weights("model.safetensors", {{"a", mx::zeros({1 << 20})}});
  EXPECT_EQ(open().hash(), first);
  fs::rename(
      folder_.file("model.safetensors"), folder_.file("model2.safetensors"));
  EXPECT_NE(open().hash(), first);
}

TEST_F(Checkpoints, HashIsTheSameOnEveryMachine) {
  config("{}");
  weights("model.safetensors", {{"a", mx::array({1.0f, 2.0f, 3.0f})}});
  EXPECT_EQ(open().hash(), "e8dce1ab63c25920de0f0c543f705a4f");
}

} // namespace
} // namespace zmlx
