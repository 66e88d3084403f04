// SPDX-License-Identifier: MIT
#include "zmlx/runtime/cpu_compiler.h"

#include <dlfcn.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/base/hash.h"
#include "zmlx/base/json.h"
#include "zmlx/base/text.h"
#include "zmlx/dialect/kernel_text.h"
#include "zmlx/runtime/compiler_message.h"
#include "zmlx/runtime/subprocess.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

// A fiber's stack holds 64 KiB.
constexpr const char* kFlags[] = {
    "-std=c++20",
    "-O3",
#if defined(__aarch64__)
    "-mcpu=native",
#else
    "-march=native",
#endif
    "-fPIC",
    "-shared",
    "-s", // without the name of a temporary file, the same text is the same
          // file
    "-ffp-contract=off", // one rounding an operation, whatever the compiler
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-exceptions",
    "-fvisibility=hidden",
    "-fdiagnostics-color=never",
    "-Werror=frame-larger-than=49152"};

struct Compiler {
  std::string program; // empty: none found
  std::string version;
};

Compiler find_compiler() {
  std::vector<std::string> names = {"c++", "g++", "clang++"};
  if (const auto named = env("CXX")) {
    names = {*named};
  }
  for (const auto& name : names) {
    const auto result = run_program({name, "--version"});
    if (result.started && result.status == 0) {
      return {name, result.output.substr(0, result.output.find('\n'))};
    }
  }
  return {"", join(names, ", ")};
}

// Looked for once for each value of CXX.
Compiler compiler() {
  static std::mutex mutex;
  static std::map<std::string, Compiler> known;
  std::lock_guard lock(mutex);
  const auto [at, fresh] = known.try_emplace(env("CXX").value_or(""));
  if (fresh) {
    at->second = find_compiler();
  }
  return at->second;
}

// What -march=native depends on.
std::string processor() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line, result;
  while (std::getline(cpuinfo, line) && !line.empty()) {
    if (line.starts_with("model name") || line.starts_with("flags") ||
        line.starts_with("Features") || line.starts_with("CPU part")) {
      result += line;
    }
  }
  utsname names;
  if (uname(&names) == 0) {
    result += names.machine;
    result += names.sysname;
  }
  return result;
}

std::string key_of(const std::string& text) {
  static const std::string machine = processor();
  const Compiler used = compiler();
  Hash hash;
  hash.add(concat(dialect::kKernelDialectVersion, '\n'));
  hash.add(used.program + '\n' + used.version + '\n');
  for (const char* flag : kFlags) {
    hash.add(flag);
  }
  hash.add(machine);
  hash.add(text);
  return hash.hex();
}

std::string content_hash(const std::string& path) {
  Hash hash;
  hash.add(read_file(path));
  return hash.hex();
}

// The function, or null if the file is no library with one.
void* open_library(const std::string& path, const char* symbol) {
  // Never closed: arrays not yet evaluated may still call it.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  return library ? dlsym(library, symbol) : nullptr;
}

// An entry is a file named after the hash of its own content, so that a
// damaged one shows and a renamed one appears whole.
void* cached_function(const fs::path& folder, const char* symbol) {
  std::error_code error;
  for (const auto& file : fs::directory_iterator(folder, error)) {
    const auto& path = file.path();
    if (path.extension() != ".so") {
      continue;
    }
    void* function = nullptr;
    try {
      if (content_hash(path) == path.stem()) {
        function = open_library(path, symbol);
      }
    } catch (const FileError&) { // unreadable: as good as damaged
    }
    if (function) {
      return function;
    }
    fs::remove(path, error);
  }
  return nullptr;
}

// A private folder for a process that cannot write to the cache.
fs::path private_folder() {
  static const std::string made = [] {
    std::string name =
        (fs::temp_directory_path() / "zmlx-kernels-XXXXXX").string();
    return mkdtemp(name.data()) ? name : std::string();
  }();
  if (made.empty()) {
    throw BackendError(
        "[compile] a folder for compiled kernels must be writable, got none; "
        "set ZMLX_CACHE_DIR.");
  }
  return made;
}

fs::path folder_for(const std::string& key) {
  std::error_code error;
  fs::path folder = fs::path(compiled_kernels_dir()) / key;
  fs::create_directories(folder, error);
  if (error || access(folder.c_str(), W_OK) != 0) {
    folder = private_folder() / key;
    fs::create_directories(folder);
  }
  return folder;
}

std::vector<std::string> command_line(
    const std::string& source,
    const std::string& library) {
  std::vector<std::string> command = {compiler().program};
  command.insert(command.end(), std::begin(kFlags), std::end(kFlags));
  command.insert(command.end(), {"-x", "c++", source, "-o", library});
  return command;
}

void* build(
    const std::string& op,
    const std::string& text,
    const char* symbol,
    const fs::path& folder) {
  static std::atomic<int> number = 0;
  const std::string base =
      (folder / concat("build-", getpid(), '-', number++)).string();
  const std::string source = base + ".cpp", library = base + ".tmp";
  write_file(source, text);
  const auto result = run_program(command_line(source, library));
  std::error_code error;
  if (!result.started || result.status != 0) {
    fs::remove(library, error);
    const std::string kept = (folder / "failed.cpp").string();
    fs::rename(source, kept, error);
    throw CompileError(concat(
        '[',
        op,
        "] CPU compile failed",
        first_error(result.output),
        " Source kept at ",
        error ? source : kept,
        '.'));
  }
  fs::remove(source, error);
  const std::string final_name =
      (folder / (content_hash(library) + ".so")).string();
  fs::rename(library, final_name);
  void* function = open_library(final_name, symbol);
  if (!function) {
    const char* why = dlerror();
    throw BackendError(concat(
        '[',
        op,
        "] a compiled kernel must load, got ",
        why ? why : "no symbol",
        '.'));
  }
  return function;
}

} // namespace

std::string compiled_kernels_dir() {
  return env_cache_dir() + "/kernels";
}

std::string cpu_compiler_description() {
  const Compiler found = compiler();
  return found.program.empty() ? concat("none of ", found.version, " runs")
                               : concat(found.program, ": ", found.version);
}

void* compiled_function(
    const std::string& op,
    const std::string& text,
    const char* symbol) {
  struct Slot {
    std::mutex mutex;
    void* function = nullptr;
  };
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<Slot>> slots;
  if (const Compiler found = compiler(); found.program.empty()) {
    throw BackendError(concat(
        '[',
        op,
        "] a raw kernel on the CPU needs a C++ compiler, and none of ",
        found.version,
        " runs. Try: apt-get install g++, or set CXX."));
  }
  const std::string key = key_of(text);
  std::shared_ptr<Slot> slot;
  {
    std::lock_guard lock(mutex);
    auto& found = slots[key];
    found = found ? found : std::make_shared<Slot>();
    slot = found;
  }
  std::lock_guard lock(slot->mutex); // others compile meanwhile
  if (!slot->function) {
    const fs::path folder = folder_for(key);
    slot->function = cached_function(folder, symbol);
    if (!slot->function) {
      slot->function = build(op, text, symbol, folder);
    }
  }
  return slot->function;
}

} // namespace zmlx
