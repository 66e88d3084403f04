// SPDX-License-Identifier: MIT
#include "zmlx/runtime/cuda_modules.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace zmlx {
namespace {

namespace fs = std::filesystem;

std::string content(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

fs::path empty_folder() {
  const auto folder = fs::path(testing::TempDir()) / "zmlx cuda modules";
  fs::remove_all(folder);
  return folder;
}

TEST(CudaModules, AreNamedAsMlxLooksForThem) {
  // MLX 0.32.4 on an H200 loaded a module of this name for this text.
  EXPECT_EQ(
      cuda_module_name("zm_probe", "zm tiny"), "zm_probe_d980f8c1218c43e3");
}

TEST(CudaModules, LieInTheFolderAsMlxReadsThem) {
  const auto folder = empty_folder();
  const std::string binary("\x7f\0ELF", 5);
  EXPECT_TRUE(write_cuda_module(
      folder,
      "custom_kernel_k_1f",
      "mlx::core::cu::custom_kernel_k",
      {binary, "_Z1k"}));
  EXPECT_EQ(content(folder / "custom_kernel_k_1f.ptx"), binary);
  EXPECT_EQ(
      content(folder / "custom_kernel_k_1f.txt"),
      "mlx::core::cu::custom_kernel_k\t_Z1k\n");
  size_t files = 0;
  for ([[maybe_unused]] const auto& file : fs::directory_iterator(folder)) {
    ++files;
  }
  EXPECT_EQ(files, 2u);
  fs::remove_all(folder);
}

TEST(CudaModules, AreLeftOutWhereTheFolderIsNone) {
  const auto file = empty_folder();
  std::ofstream(file) << "no folder";
  EXPECT_FALSE(write_cuda_module(file, "k_1", "k", {"", ""}));
  fs::remove(file);
}

TEST(CudaModules, ArePassedByWhereAKernelIsNotOfMlx) {
  int calls = 0;
  const auto kernel = kept_compiled([&](auto&&...) {
    ++calls;
    return std::vector<mx::array>{mx::array(1)};
  });
  for (int i = 1; i <= 2; ++i) {
    EXPECT_EQ(
        kernel({}, {}, {}, {1, 1, 1}, {1, 1, 1}, {}, std::nullopt, false, {})
            .size(),
        1u);
    EXPECT_EQ(calls, i + 1); // one of them to look at what it makes
  }
}

} // namespace
} // namespace zmlx
