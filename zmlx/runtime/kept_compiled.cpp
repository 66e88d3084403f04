// SPDX-License-Identifier: MIT
#include "zmlx/runtime/kept_compiled.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "mlx/fast_primitives.h"
#include "mlx/version.h"

#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/runtime/cuda_modules.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

// Names of files and functions, and what MLX's header declares, are this one's.
constexpr std::string_view kKnownMlx = "0.32.4";

/// As MLX finds it.
fs::path mlx_cache() {
  const auto named = env("MLX_PTX_CACHE_DIR");
  return named ? fs::path(*named)
               : fs::temp_directory_path() / "mlx" / mx::version() / "ptx";
}

std::string device_architecture() {
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

/// What is to be compiled, and where its module goes.
struct Text {
  std::string kernel, source, architecture;
  fs::path folder;
  std::string name, function; // of the files, and in them
  std::optional<Found> found; // what later calls name, unless they give a text

  fs::path file() const {
    return folder / (name + ".ptx");
  }
  bool kept() const {
    std::error_code error;
    return fs::exists(file(), error);
  }
};

/// The text of the kernel whose output this is, unless MLX alone must see to
/// it.
std::optional<Text> text_of(
    const mx::array& made,
    const std::string& architecture) {
  const auto* primitive = custom_kernel(made);
  Text text;
  text.architecture =
      architecture.empty() ? device_architecture() : architecture;
  if (!primitive || kKnownMlx != mx::version() || text.architecture.empty()) {
    return std::nullopt;
  }
  const auto state = primitive->state();
  text.kernel = std::get<0>(state);
  text.source = std::get<1>(state);
  text.folder = mlx_cache();
  text.name = cuda_module_name(text.kernel, text.source);
  text.function = cuda_function_name(text.kernel);
  const auto& reads = std::get<4>(state); // shape, strides, axes of each input
  const bool bare = std::ranges::all_of(reads, [](const auto& read) {
    return read == std::tuple(false, false, false);
  });
  if (bare) {
    text.found = Found{
        text.name,
        "zmlx " + text.architecture,
        std::get<5>(state),
        std::get<9>(state)};
    text.function = text.name;
    text.name = cuda_module_name(text.found->name, text.found->text);
  }
  return text;
}

/// Files whose text a thread is compiling, and those that it could not make.
struct Files {
  std::mutex mutex;
  std::condition_variable changed;
  std::set<fs::path> begun, failed;
};

Files& files() {
  static auto* all = new Files; // never freed: threads may end after main()
  return *all;
}

/// Sees to it that the text's module lies in the folder, however many threads
/// ask for it; whether it does.
bool keep(const Text& text) {
  auto& [mutex, changed, begun, failed] = files();
  const auto file = text.file();
  std::unique_lock lock(mutex);
  while (begun.contains(file)) {
    changed.wait(lock);
  }
  if (text.kept() || failed.contains(file)) {
    return text.kept();
  }
  begun.insert(file);
  lock.unlock();
  bool made = false;
  try {
    const auto module =
        compile_cuda_module(text.kernel, text.source, text.architecture);
    made = module &&
        write_cuda_module(text.folder, text.name, text.function, *module);
  } catch (const std::exception&) { // MLX compiles it
  }
  lock.lock();
  begun.erase(file);
  if (!made) {
    failed.insert(file);
  }
  changed.notify_all();
  return made;
}

void keep_all(const std::vector<Text>& texts) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < texts.size(); i = next++) {
      keep(texts[i]);
    }
  };
  const size_t processors = std::max(1u, std::thread::hardware_concurrency());
  const size_t most = std::min(texts.size(), processors);
  std::vector<std::future<void>> others; // which it waits for at its end
  try {
    for (size_t i = 1; i < most; ++i) {
      others.push_back(std::async(std::launch::async, work));
    }
  } catch (const std::system_error&) { // no more threads
  }
  work();
}

/// Where this thread's first calls are noted, if anywhere.
thread_local std::vector<Text>* noted = nullptr;

void note(const mx::array& made, const std::string& architecture) {
  const auto text = text_of(made, architecture);
  const auto same = [&](const Text& other) {
    return other.file() == text->file();
  };
  if (text && std::ranges::none_of(*noted, same) && !text->kept()) {
    noted->push_back(*text);
  }
}

std::vector<Text> texts_in(const std::function<void()>& build) {
  std::vector<Text> texts;
  struct Noting {
    explicit Noting(std::vector<Text>& texts)
        : before(std::exchange(noted, &texts)) {}
    ~Noting() {
      noted = before;
    }
    std::vector<Text>* before; // of a build around this one
  } noting(texts);
  try {
    build();
  } catch (const std::exception&) { // so will what is built to be evaluated
  }
  return texts;
}

} // namespace

void compile_together(const std::function<void()>& build) {
  keep_all(texts_in(build));
}

std::future<void> compile_ahead(const std::function<void()>& build) {
  auto texts = texts_in(build);
  if (texts.empty()) {
    return {};
  }
  try {
    return std::async(
        std::launch::async, [texts = std::move(texts)] { keep_all(texts); });
  } catch (const std::system_error&) { // no thread: first calls compile
    return {};
  }
}

mx::fast::CustomKernelFunction kept_compiled(
    mx::fast::CustomKernelFunction kernel,
    std::string architecture) {
  struct Kept {
    std::once_flag once;
    std::atomic<bool> looked = false;
    std::optional<Found> found;
  };
  return [kernel = std::move(kernel),
          architecture = std::move(architecture),
          kept = std::make_shared<Kept>()](
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
    if (noted && !kept->looked) {
      auto made = with_text();
      note(made.at(0), architecture);
      return made;
    }
    std::call_once(kept->once, [&] {
      try {
        const auto text = text_of(with_text().at(0), architecture);
        if (text && keep(*text)) {
          kept->found = text->found;
        }
      } catch (const std::exception&) { // MLX compiles it
      }
      kept->looked = true;
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

} // namespace zmlx
