// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/hub.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

// A cache of its own for each test; the environment is put back after it.
class Hub : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name :
         {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* value = std::getenv(name);
      saved_[name] =
          value == nullptr ? std::nullopt : std::optional<std::string>(value);
      ::unsetenv(name);
    }
    ::setenv("HF_HUB_CACHE", cache_.path().c_str(), 1);
  }
  void TearDown() override {
    for (const auto& [name, value] : saved_) {
      value ? ::setenv(name.c_str(), value->c_str(), 1)
            : ::unsetenv(name.c_str());
    }
  }
  std::string snapshot(
      const std::string& model,
      const std::string& commit,
      bool complete = true) {
    const std::string path = cache_.file(model + "/snapshots/" + commit);
    fs::create_directories(path);
    if (complete) {
      write_file(path + "/config.json", "{}");
    }
    return path;
  }
  void ref(const std::string& model, const std::string& commit) {
    fs::create_directories(cache_.file(model + "/refs"));
    write_file(cache_.file(model + "/refs/main"), commit);
  }
  static std::string message_of(const std::string& name) {
    try {
      resolve_model(name);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  }

  TemporaryFolder cache_;
  std::map<std::string, std::optional<std::string>> saved_;
};

TEST_F(Hub, AFolderIsTakenAsItIs) {
  EXPECT_EQ(resolve_model(cache_.path()), cache_.path());
  EXPECT_EQ(resolve_model("."), ".");
}

TEST_F(Hub, RefsMainNamesTheSnapshot) {
  const std::string wanted = snapshot("models--org--name", "aaa");
  snapshot("models--org--name", "bbb");
  ref("models--org--name", "aaa\n");
  EXPECT_EQ(resolve_model("org/name"), wanted);
  EXPECT_EQ(cached_models(), std::vector<std::string>{"org/name"});
}

TEST_F(Hub, WithoutRefsTheNewestCompleteSnapshotIsTaken) {
  const std::string older = snapshot("models--org--name", "zzz");
  const std::string newer = snapshot("models--org--name", "bbb");
  const std::string empty = snapshot("models--org--name", "ccc", false);
  const auto now = fs::file_time_type::clock::now();
  fs::last_write_time(older, now - std::chrono::hours(2));
  fs::last_write_time(newer, now - std::chrono::hours(1));
  fs::last_write_time(empty, now);
  EXPECT_EQ(resolve_model("org/name"), newer);
  ref("models--org--name", "ccc"); // begun, not finished
  EXPECT_EQ(resolve_model("org/name"), newer);
}

TEST_F(Hub, TakesIdsWithoutAnOrganisation) {
  const std::string wanted = snapshot("models--gpt2", "aaa");
  EXPECT_EQ(resolve_model("gpt2"), wanted);
}

TEST_F(Hub, SaysHowToDownloadAndWhatIsNear) {
  snapshot("models--mlx-community--LFM2-8B-A1B-4bit", "aaa");
  fs::create_directories(cache_.file("models--org--half"));
  EXPECT_EQ(
      message_of("mlx-community/LFM2-8B-A1B-8bit"),
      concat(
          "mlx-community/LFM2-8B-A1B-8bit: no such folder, and the Hugging "
          "Face cache ",
          cache_.path(),
          " does not hold it. Did you mean 'mlx-community/LFM2-8B-A1B-4bit'? "
          "Try: hf download mlx-community/LFM2-8B-A1B-8bit"));
  EXPECT_NE(
      message_of("org/half").find("holds no complete snapshot of it. Try: hf"),
      std::string::npos)
      << message_of("org/half");
}

TEST_F(Hub, RefusesNamesThatLeaveTheCache) {
  for (const char* name :
       {"../x",
        "org/..",
        "org/../x",
        "a/b/c",
        "/no/such/folder",
        "",

        "org/",
        "/name",
        "org//name",
        "a--b/c",
        ".hidden/x",
        "-x/y",
        "o/n.",
        "org/na me",
        "org/n\nm",
        "org\\name",
        "./none"}) {
    EXPECT_THROW(resolve_model(name), std::invalid_argument) << name;
  }
  EXPECT_EQ(
      message_of("../x"),
      "[model] must be an existing folder or a Hugging Face id such as "
      "'org/name', got '../x'.");
  write_file(cache_.file("f"), "");
  EXPECT_NE(message_of(cache_.file("f")).find("got the file"), SIZE_MAX);
}

TEST_F(Hub, RefusesARefThatLeavesTheCache) {
  snapshot("models--org--name", "aaa");
  for (const char* commit : {"../../../other", "..", "a/b", "", "/etc"}) {
    ref("models--org--name", commit);
    EXPECT_NE(
        message_of("org/name").find("refs/main: must hold a commit"),
        std::string::npos)
        << commit;
  }
}

TEST_F(Hub, TheEnvironmentNamesTheCache) {
  ::setenv("HOME", "/home/me", 1);
  ::setenv("XDG_CACHE_HOME", "/xdg", 1);
  ::setenv("HF_HOME", "~/hf", 1);
  EXPECT_EQ(hub_cache_folder(), cache_.path());
  ::setenv("HF_HUB_CACHE", "", 1);
  EXPECT_EQ(hub_cache_folder(), "/home/me/hf/hub");
  ::unsetenv("HF_HOME");
  EXPECT_EQ(hub_cache_folder(), "/xdg/huggingface/hub");
  ::unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(hub_cache_folder(), "/home/me/.cache/huggingface/hub");
}

} // namespace
} // namespace zmlx
