// SPDX-License-Identifier: MIT
#include "zmlx/runtime/cuda_modules.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "mlx/version.h"

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;
namespace mx = mlx::core;

/// Headers by the names that texts have for them.
struct Headers {
  std::vector<const char*> names, texts;
};

constexpr const char* kUtilsName = "mlx/backend/cuda/device/utils.cuh";

// Instead of MLX's own, which is not among the headers that it installs.
constexpr const char* kUtils = R"(#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda/std/array>
#include <cuda/std/limits>
namespace mlx::core::cu {
using Shape = cuda::std::array<int, 10>;
using Strides = cuda::std::array<long, 10>;
}
)";

// The same without CUDA's C++ library; and of cooperative groups, which MLX
// includes and names in every text, the name. Reading these took 1.2 s of the
// 1.8 s of a kernel of ours.
constexpr const char* kLightUtils = R"(#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
namespace mlx::core::cu {
template <class T>
struct Ten {
  T values[10];
  __device__ __forceinline__ const T& operator[](int i) const {
    return values[i];
  }
};
using Shape = Ten<int>;
using Strides = Ten<long>;
}
)";
constexpr const char* kNoGroups =
    "#pragma once\nnamespace cooperative_groups {}\n";

/// NVRTC as MLX has loaded it; its functions return 0 when done.
class Nvrtc {
 public:
  static const Nvrtc& get() {
    static const Nvrtc nvrtc;
    return nvrtc;
  }
  bool loaded() const {
    return destroy != nullptr;
  }
  /// The folder of CUDA's headers that belong to it.
  fs::path headers() const {
    Dl_info info;
    const bool found =
        dladdr(reinterpret_cast<void*>(destroy), &info) && info.dli_fname;
    std::error_code error;
    const auto file = found ? fs::canonical(info.dli_fname, error) : fs::path();
    return file.parent_path().parent_path() / "include";
  }

  int (*create)(
      void**,
      const char*,
      const char*,
      int,
      const char* const*,
      const char* const*) = nullptr;
  int (*add_name)(void*, const char*) = nullptr;
  int (*compile)(void*, int, const char* const*) = nullptr;
  int (*lowered_name)(void*, const char*, const char**) = nullptr;
  int (*size)(void*, size_t*) = nullptr;
  int (*binary)(void*, char*) = nullptr;
  int (*destroy)(void**) = nullptr;

 private:
  Nvrtc() {
    void* library = nullptr;
    for (const char* name : {"libnvrtc.so.13", "libnvrtc.so.12"}) {
      library = library ? library : dlopen(name, RTLD_NOW | RTLD_NOLOAD);
    }
    if (!library) {
      return;
    }
    bool all = true;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(
          dlsym(library, name));
      all = all && function;
    };
    find(create, "nvrtcCreateProgram");
    find(add_name, "nvrtcAddNameExpression");
    find(compile, "nvrtcCompileProgram");
    find(lowered_name, "nvrtcGetLoweredName");
    find(size, "nvrtcGetCUBINSize");
    find(binary, "nvrtcGetCUBIN");
    find(destroy, "nvrtcDestroyProgram");
    destroy = all ? destroy : nullptr;
  }
};

/// Where MLX's headers are, those of CUDA's C++ library among them.
fs::path mlx_headers() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void*>(&mx::version), &info)) {
    return {};
  }
  return fs::path(info.dli_fname).parent_path().parent_path() / "include";
}

bool write_whole(const fs::path& file, const std::string& content) {
  static std::atomic<int> number = 0;
  const fs::path part =
      concat(file.string(), ".part-", getpid(), '-', number++);
  std::ofstream out(part, std::ios::binary);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  out.close();
  std::error_code error;
  if (out) {
    fs::rename(part, file, error);
  }
  if (!out || error) {
    fs::remove(part, error);
    return false;
  }
  return true;
}

} // namespace

std::string cuda_function_name(const std::string& kernel) {
  return "mlx::core::cu::" + kernel;
}

std::string cuda_module_name(
    const std::string& kernel,
    const std::string& source) {
  return fmt::format("{}_{:x}", kernel, std::hash<std::string>{}(source));
}

bool write_cuda_module(
    const fs::path& folder,
    const std::string& name,
    const std::string& kernel,
    const CudaModule& module) {
  std::error_code error;
  fs::create_directories(folder, error);
  // MLX goes by the first of the two files, so it comes last.
  return write_whole(
             folder / (name + ".txt"), kernel + '\t' + module.symbol + '\n') &&
      write_whole(folder / (name + ".ptx"), module.binary);
}

namespace {

std::optional<CudaModule> compile_with(
    const Headers& headers,
    const std::string& kernel,
    const std::string& source,
    const std::string& architecture) {
  const auto& nvrtc = Nvrtc::get();
  void* made = nullptr;
  if (nvrtc.create(
          &made,
          source.c_str(),
          "kernel.cu",
          static_cast<int>(headers.names.size()),
          headers.texts.data(),
          headers.names.data()) != 0) {
    return std::nullopt;
  }
  const auto end = [&nvrtc](void* program) { nvrtc.destroy(&program); };
  const std::unique_ptr<void, decltype(end)> program(made, end);
  const std::string name = cuda_function_name(kernel);
  const std::vector<std::string> options = {
      "--device-as-default-execution-space",
      "--gpu-architecture=" + architecture,
      "--include-path=" + mlx_headers().string(),
      "--include-path=" + (mlx_headers() / "cccl").string(),
      "--include-path=" + nvrtc.headers().string(),
      "--include-path=" + (nvrtc.headers() / "cccl").string()};
  std::vector<const char*> texts;
  for (const auto& option : options) {
    texts.push_back(option.c_str());
  }
  const char* symbol = nullptr;
  size_t size = 0;
  if (nvrtc.add_name(made, name.c_str()) != 0 ||
      nvrtc.compile(made, static_cast<int>(texts.size()), texts.data()) != 0 ||
      nvrtc.lowered_name(made, name.c_str(), &symbol) != 0 ||
      nvrtc.size(made, &size) != 0 || size == 0) {
    return std::nullopt;
  }
  CudaModule module{std::string(size, '\0'), symbol};
  if (nvrtc.binary(made, module.binary.data()) != 0) {
    return std::nullopt;
  }
  return module;
}

} // namespace

std::optional<CudaModule> compile_cuda_module(
    const std::string& kernel,
    const std::string& source,
    const std::string& architecture) {
  if (!Nvrtc::get().loaded()) {
    return std::nullopt;
  }
  const auto compiled = compile_with(
      {{kUtilsName, "cooperative_groups.h"}, {kLightUtils, kNoGroups}},
      kernel,
      source,
      architecture);
  // A text of the user's may use what was left out.
  return compiled
      ? compiled
      : compile_with({{kUtilsName}, {kUtils}}, kernel, source, architecture);
}

} // namespace zmlx
