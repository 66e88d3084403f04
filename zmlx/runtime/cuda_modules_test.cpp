// SPDX-License-Identifier: MIT
#include "zmlx/runtime/cuda_modules.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/checkpoint/temporary_folder.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

std::string content(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

TEST(CudaModules, AreNamedAsMlxLooksForThem) {
  // MLX 0.32.4 on an H200 loaded a module of this name for this text.
  EXPECT_EQ(
      cuda_module_name("zm_probe", "zm tiny"), "zm_probe_d980f8c1218c43e3");
}

TEST(CudaModules, LieInTheFolderAsMlxReadsThem) {
  const TemporaryFolder around;
  const fs::path folder = around.file("not there yet");
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
}

TEST(CudaModules, AreLeftOutWhereTheFolderIsNone) {
  const TemporaryFolder folder;
  const fs::path file = folder.file("file");
  std::ofstream(file) << "no folder";
  EXPECT_FALSE(write_cuda_module(file, "k_1", "k", {"", ""}));
}

bool loads_nvrtc() {
  for (const char* name :
       {"libnvrtc.so.13", "/usr/local/cuda/lib64/libnvrtc.so.13"}) {
    if (dlopen(name, RTLD_NOW | RTLD_GLOBAL)) {
      return true;
    }
  }
  return false;
}

/// As MLX 0.32.4 writes a custom kernel that asks for a shape.
std::string text_around(const std::string& body) {
  const std::string include = "\n#include ";
  return include + "\"mlx/backend/cuda/device/utils.cuh\"" + include +
      "<cooperative_groups.h>\n" + R"(
namespace mlx::core::cu {

namespace cg = cooperative_groups;

__global__ void custom_kernel_k(
    const __nv_bfloat16* x,
    const __grid_constant__ Shape x_shape,
    const __grid_constant__ Strides x_strides,
    float* out) {
)" + body +
      "\n}\n\n} // namespace mlx::core::cu\n";
}

TEST(CudaModules, AreCompiledWhateverTheTextUses) {
  if (!loads_nvrtc()) {
    GTEST_SKIP() << "no NVRTC here";
  }
  /// The size of its module, which the whole headers alone make 200 kB; 0:
  /// none.
  const auto size_of = [](const std::string& body) -> size_t {
    const auto module =
        compile_cuda_module("custom_kernel_k", text_around(body), "sm_90a");
    const bool good = module && module->binary.substr(1, 3) == "ELF" &&
        module->symbol.find("custom_kernel_k") != std::string::npos;
    return good ? module->binary.size() : 0;
  };
  const auto is_light = [](size_t size) { return size > 0 && size < 50000; };
  EXPECT_TRUE(is_light(
      size_of("out[x_strides[1]] = x_shape[0] * __bfloat162float(x[0]);")));
  // MLX names arrays' types so.
  EXPECT_TRUE(is_light(size_of(
      "const int8_t a = 1; const int16_t b = 2; const int32_t c = 3;\n"
      "const int64_t d = 4; const uint8_t e = 5; const uint16_t f = 6;\n"
      "const uint32_t g = 7; const uint64_t h = 8;\n"
      "static_assert(sizeof(d) == 8 && sizeof(h) == 8);\n"
      "out[0] = a + b + c + d + e + f + g + h;")));
  EXPECT_GT(
      size_of("out[cg::this_thread_block().thread_rank()] = x_shape.size();"),
      0u);
  EXPECT_GT(size_of("out[0] = cuda::std::numeric_limits<float>::max();"), 0u);
  EXPECT_EQ(size_of("out[0] = no_such_name;"), 0u);
}

} // namespace
} // namespace zmlx
