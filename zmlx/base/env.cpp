// SPDX-License-Identifier: MIT
#include "zmlx/base/env.h"

#include <cstdlib>

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

std::string home_cache() {
  if (const auto dir = env("XDG_CACHE_HOME")) {
    return *dir;
  }
  const auto home = env("HOME");
  return home ? *home + "/.cache" : ".cache";
}

} // namespace

const std::vector<EnvVariable>& env_variables() {
  static const std::vector<EnvVariable> variables = {
      {"ZMLX_THREADS", "threads of the CPU team"},
      {"ZMLX_HUGE_PAGES", "0: leave weights in pages of the usual size (CPU)"},
      {"ZMLX_CACHE_DIR", "where compiled kernels are kept"},
      {"MLX_PTX_CACHE_DIR", "where MLX and zmlx keep compiled CUDA kernels"},
      {"ZMLX_CHECK_KERNELS", "1: run raw kernels on the CPU in checked mode"},
      {"CXX", "compiler of raw kernels on the CPU (default: c++ in PATH)"},
      {"HF_HUB_CACHE", "where Hugging Face keeps models"},
      {"HF_HOME", "the same: hub below it"},
      {"XDG_CACHE_HOME", "the same: huggingface/hub below it"},
      {"HOME", "for the defaults below .cache"},
  };
  return variables;
}

std::optional<std::string> env(std::string_view name) {
  for (const auto& variable : env_variables()) {
    if (variable.name == name) {
      const char* value = std::getenv(variable.name);
      return value && *value ? std::optional<std::string>(value) : std::nullopt;
    }
  }
  invalid("env", "a variable must be in the list of env.cpp, got ", name, '.');
}

std::string env_cache_dir() {
  const auto dir = env("ZMLX_CACHE_DIR");
  return dir ? *dir : home_cache() + "/zmlx";
}

} // namespace zmlx
