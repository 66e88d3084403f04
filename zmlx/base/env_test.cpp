// SPDX-License-Identifier: MIT
#include "zmlx/base/env.h"

#include <cstdlib>

#include <gtest/gtest.h>

namespace zmlx {
namespace {

class Env : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const auto& variable : env_variables()) {
      unsetenv(variable.name);
    }
    setenv("HOME", "/home/someone", 1);
  }
};

// Nine of ours, and where MLX keeps its own compiled kernels.
TEST_F(Env, StaysAtTenVariables) {
  EXPECT_LE(env_variables().size(), 10u);
}

TEST_F(Env, TakesEmptyForUnset) {
  EXPECT_FALSE(env("ZMLX_THREADS"));
  setenv("ZMLX_THREADS", "", 1);
  EXPECT_FALSE(env("ZMLX_THREADS"));
  setenv("ZMLX_THREADS", "3", 1);
  EXPECT_EQ(env("ZMLX_THREADS"), "3");
}

TEST_F(Env, RefusesUndeclaredNames) {
  EXPECT_THROW(env("PATH"), std::invalid_argument);
}

TEST_F(Env, FindsTheCacheFolder) {
  EXPECT_EQ(env_cache_dir(), "/home/someone/.cache/zmlx");
  unsetenv("HOME");
  EXPECT_EQ(env_cache_dir(), ".cache/zmlx");
  setenv("XDG_CACHE_HOME", "/xdg", 1);
  EXPECT_EQ(env_cache_dir(), "/xdg/zmlx");
  setenv("ZMLX_CACHE_DIR", "/mine", 1);
  EXPECT_EQ(env_cache_dir(), "/mine");
}

} // namespace
} // namespace zmlx
