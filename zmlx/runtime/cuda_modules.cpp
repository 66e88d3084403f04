// SPDX-License-Identifier: MIT
#include "zmlx/runtime/cuda_modules.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "mlx/fast_primitives.h"
#include "mlx/version.h"

#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/base/text.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

// Names of files and functions, and what MLX's header declares, are this one's.
constexpr std::string_view kKnownMlx = "0.32.4";

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

std::string qualified(const std::string& kernel) {
  return "mlx::core::cu::" + kernel;
}

/// Where MLX's headers are, those of CUDA's C++ library among them.
fs::path mlx_headers() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void*>(&mx::version), &info)) {
    return {};
  }
  return fs::path(info.dli_fname).parent_path().parent_path() / "include";
}

/// As MLX finds it.
fs::path mlx_cache() {
  const auto named = env("MLX_PTX_CACHE_DIR");
  return named ? fs::path(*named)
               : fs::temp_directory_path() / "mlx" / mx::version() / "ptx";
}

std::string architecture() {
  const auto& info = mx::device_info(mx::Device(mx::Device::gpu));
  const auto major = info.find("compute_capability_major");
  const auto minor = info.find("compute_capability_minor");
  if (major == info.end() || minor == info.end()) {
    return "";
  }
  const auto first = std::get<size_t>(major->second);
  return concat(
      "sm_", first, std::get<size_t>(minor->second), first >= 9 ? "a" : "");
}

/// The text that MLX made of the kernel whose output this is.
const mx::fast::CustomKernel* custom_kernel(const mx::array& made) {
  const bool is_one = made.has_primitive() &&
      std::string_view(made.primitive().name()) == "CustomKernel";
  return is_one ? static_cast<const mx::fast::CustomKernel*>(&made.primitive())
                : nullptr;
}

/// A kernel that MLX finds compiled by its name and a text that is none.
struct Found {
  std::string name, text;
  bool row_contiguous = false;
  int shared_memory = 0;
};

/// Sees to it that the module of the kernel whose output this is lies in the
/// folder. What later calls name, or none where they must give the text.
std::optional<Found> keep(const mx::array& made) {
  const auto* primitive = custom_kernel(made);
  const auto arch = architecture();
  if (!primitive || kKnownMlx != mx::version() || arch.empty()) {
    return std::nullopt;
  }
  const auto state = primitive->state();
  const std::string& kernel = std::get<0>(state);
  const std::string& source = std::get<1>(state);
  const auto& reads = std::get<4>(state); // shape, strides, axes of each input
  const bool bare = std::ranges::all_of(reads, [](const auto& read) {
    return read == std::tuple(false, false, false);
  });
  const auto full = cuda_module_name(kernel, source);
  Found found{full, "zmlx " + arch, std::get<5>(state), std::get<9>(state)};
  const auto folder = mlx_cache();
  const auto name = bare ? cuda_module_name(found.name, found.text) : full;
  std::error_code error;
  if (!fs::exists(folder / (name + ".ptx"), error)) {
    const auto module = compile_cuda_module(kernel, source, arch);
    if (!module ||
        !write_cuda_module(
            folder, name, bare ? found.name : qualified(kernel), *module)) {
      return std::nullopt;
    }
  }
  return bare ? std::optional(found) : std::nullopt;
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

mx::fast::CustomKernelFunction kept_compiled(
    mx::fast::CustomKernelFunction kernel) {
  struct Kept {
    std::once_flag once;
    std::optional<Found> found;
  };
  return [kernel = std::move(kernel), kept = std::make_shared<Kept>()](
             const std::vector<mx::array>& inputs,
             const std::vector<mx::Shape>& shapes,
             const std::vector<mx::Dtype>& dtypes,
             std::tuple<int, int, int> grid,
             std::tuple<int, int, int> threadgroup,
             const std::vector<std::pair<std::string, mx::fast::TemplateArg>>&
                 templates,
             std::optional<float> init_value,
             bool verbose,
             mx::StreamOrDevice s) {
    const auto with_text = [&] {
      return kernel(
          inputs,
          shapes,
          dtypes,
          grid,
          threadgroup,
          templates,
          init_value,
          verbose,
          s);
    };
    std::call_once(kept->once, [&] {
      try {
        kept->found = keep(with_text().at(0));
      } catch (const std::exception&) { // MLX compiles it
      }
    });
    if (!kept->found) {
      return with_text();
    }
    return mx::fast::precompiled_cuda_kernel(
        kept->found->name,
        kept->found->text,
        inputs,
        shapes,
        dtypes,
        {},
        grid,
        threadgroup,
        kept->found->shared_memory,
        init_value,
        kept->found->row_contiguous,
        s);
  };
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
  const std::string name = qualified(kernel);
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
