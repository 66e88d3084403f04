// SPDX-License-Identifier: MIT
// Against a stand-in for NVRTC, tests/fake_nvrtc.cpp.
#include "zmlx/runtime/kept_compiled.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include "mlx/fast_primitives.h"

#include "zmlx/runtime/cuda_modules.h"

// MLX has it where it has CUDA only.
void mlx::core::fast::CustomKernel::eval_gpu(
    const std::vector<array>&,
    std::vector<array>&) {
  throw std::logic_error("these tests evaluate nothing");
}

namespace zmlx {
namespace {

namespace fs = std::filesystem;

/// Of the stand-in, once it is loaded.
int asked(const char* what) {
  static void* library = dlopen(ZMLX_FAKE_NVRTC, RTLD_NOW);
  return reinterpret_cast<int (*)()>(dlsym(library, what))();
}

using Function = mx::fast::CustomKernelFunction;

/// A kernel as MLX makes it where there is CUDA, of this text; it reads the
/// shape of its input or, if bare, only values.
Function mlx_kernel(const std::string& source, bool bare) {
  return [=](auto&&...) {
    auto primitive = std::make_shared<mx::fast::CustomKernel>(
        mx::default_stream(mx::Device(mx::Device::cpu)),
        "custom_kernel_k",
        source,
        std::tuple(1, 1, 1),
        std::tuple(1, 1, 1),
        std::vector<std::tuple<bool, bool, bool>>{{!bare, false, false}},
        false,
        std::nullopt,
        std::vector<mx::fast::ScalarArg>{},
        false,
        0);
    return std::vector<mx::array>{
        mx::array({1}, mx::float32, std::move(primitive), {})};
  };
}

class KeptCompiled : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    has_another_ = dlopen("libnvrtc.so.13", RTLD_NOW | RTLD_NOLOAD) != nullptr;
  }
  void SetUp() override {
    if (has_another_) {
      GTEST_SKIP() << "MLX has loaded NVRTC itself";
    }
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(testing::TempDir()) / "zmlx kept" / test->name();
    fs::remove_all(folder_);
    setenv("MLX_PTX_CACHE_DIR", folder_.c_str(), 1);
    calls_ = asked("fake_nvrtc_calls");
  }
  void TearDown() override {
    fs::remove_all(folder_);
  }

  static Function kernel(const std::string& source, bool bare = false) {
    return kept_compiled(mlx_kernel(source, bare), "sm_90a");
  }
  static std::vector<mx::array> call(const Function& kernel) {
    return kernel(
        {}, {}, {}, {1, 1, 1}, {1, 1, 1}, {}, std::nullopt, false, {});
  }
  /// Whether a call names what is kept, which MLX refuses without CUDA.
  static bool names_what_is_kept(const Function& kernel) {
    try {
      const auto& primitive = call(kernel)[0].primitive();
      return std::get<8>(
          static_cast<const mx::fast::CustomKernel&>(primitive).state());
    } catch (const std::runtime_error& error) {
      return std::string(error.what()).find("CUDA") != std::string::npos;
    }
  }
  int compiled() const {
    return asked("fake_nvrtc_calls") - calls_;
  }
  bool kept(const std::string& source) const {
    return fs::exists(
        folder_ / (cuda_module_name("custom_kernel_k", source) + ".ptx"));
  }

 private:
  static inline bool has_another_ = false;
  fs::path folder_;
  int calls_ = 0;
};

TEST_F(KeptCompiled, WhatIsNoKernelOfMlxIsPassedBy) {
  int calls = 0;
  const auto passed = kept_compiled([&](auto&&...) {
    ++calls;
    return std::vector<mx::array>{mx::array(1)};
  });
  compile_together([&] { EXPECT_EQ(call(passed).size(), 1u); });
  EXPECT_EQ(calls, 1);
  for (int i = 1; i <= 2; ++i) {
    EXPECT_EQ(call(passed).size(), 1u);
    EXPECT_EQ(calls, i + 2); // one of them to look at what it makes
  }
  EXPECT_EQ(compiled(), 0);
}

TEST_F(KeptCompiled, FirstCallsInABuildAreCompiledTogether) {
  const auto a = kernel("meet a"), same = kernel("meet a"),
             b = kernel("meet b");
  compile_together([&] {
    for (const auto* one : {&a, &a, &same, &b}) {
      EXPECT_EQ(call(*one).size(), 1u);
    }
    EXPECT_EQ(compiled(), 0);
  });
  EXPECT_EQ(compiled(), 2);
  EXPECT_TRUE(kept("meet a") && kept("meet b"));
  if (std::thread::hardware_concurrency() > 1) {
    EXPECT_EQ(asked("fake_nvrtc_most_at_once"), 2);
  }
  for (const auto* one : {&a, &same, &b}) {
    call(*one);
  }
  EXPECT_EQ(compiled(), 2);
}

TEST_F(KeptCompiled, LaterCallsNameWhatWasCompiledAhead) {
  const auto bare = kernel("bare", true);
  compile_together([&] { EXPECT_FALSE(names_what_is_kept(bare)); });
  EXPECT_EQ(compiled(), 1);
  EXPECT_TRUE(names_what_is_kept(bare));
  EXPECT_EQ(compiled(), 1);
  compile_together([&] { EXPECT_TRUE(names_what_is_kept(bare)); });
}

TEST_F(KeptCompiled, ATextThatCannotBeCompiledIsLeftToMlx) {
  const auto wrong = kernel("no_such_name", true), right = kernel("right");
  compile_together([&] {
    call(wrong);
    call(right);
  });
  EXPECT_TRUE(kept("right"));
  const int tried = compiled();
  EXPECT_EQ(tried, 3); // by light headers, by the whole ones, and the other
  EXPECT_FALSE(names_what_is_kept(wrong));
  EXPECT_FALSE(kept("no_such_name"));
  EXPECT_EQ(compiled(), tried);
}

TEST_F(KeptCompiled, WhatABuildThrowsEndsTheNotingOnly) {
  const auto before = kernel("before"), after = kernel("after");
  compile_together([&] {
    call(before);
    throw std::runtime_error("no such module");
  });
  EXPECT_TRUE(kept("before"));
  call(after);
  EXPECT_TRUE(kept("after"));
}

TEST_F(KeptCompiled, BuildsMayBeWithinBuilds) {
  const auto inner = kernel("inner"), outer = kernel("outer");
  compile_together([&] {
    compile_together([&] { call(inner); });
    EXPECT_TRUE(kept("inner"));
    call(outer);
    EXPECT_FALSE(kept("outer"));
  });
  EXPECT_TRUE(kept("outer"));
  EXPECT_EQ(compiled(), 2);
}

TEST_F(KeptCompiled, OtherThreadsCompileAtTheirFirstCalls) {
  const auto mine = kernel("mine"), theirs = kernel("theirs");
  compile_together([&] {
    call(mine);
    std::thread([&] { call(theirs); }).join();
    EXPECT_TRUE(kept("theirs"));
    EXPECT_FALSE(kept("mine"));
  });
  EXPECT_TRUE(kept("mine"));
}

TEST_F(KeptCompiled, ACallWaitsForWhatIsCompiledInTheBackground) {
  const auto slow = kernel("slow");
  auto ahead = compile_ahead([&] { call(slow); });
  ASSERT_TRUE(ahead.valid());
  const auto same = kernel("slow");
  call(same);
  EXPECT_TRUE(kept("slow"));
  ahead.get();
  EXPECT_EQ(compiled(), 1);
  EXPECT_FALSE(compile_ahead([&] { call(slow); }).valid()); // nothing is left
}

} // namespace
} // namespace zmlx
