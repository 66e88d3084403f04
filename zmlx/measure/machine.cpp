// SPDX-License-Identifier: MIT
#include "zmlx/measure/machine.h"

#include <fstream>
#include <string_view>
#include <thread>

#include <sys/utsname.h>
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include <hwy/targets.h>

#include "mlx/mlx.h"
#include "zmlx/base/error.h"
#include "zmlx/measure/memory.h"

extern char** environ;

namespace zmlx::measure {
namespace {

namespace mx = mlx::core;

std::string cpu_name() {
#if defined(__APPLE__)
  char name[256] = "";
  size_t size = sizeof name;
  sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0);
  return name;
#else
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "";
#endif
}

std::string os_name() {
  utsname names{};
  return uname(&names) == 0
      ? concat(names.sysname, ' ', names.release, ' ', names.machine)
      : "";
}

// Highway numbers its targets so that the lowest bit is the best one.
std::string simd_name() {
  const int64_t targets = hwy::SupportedTargets();
  return hwy::TargetName(targets & -targets);
}

std::string gpu_name() {
  const auto& info = mx::device_info(mx::default_device());
  const auto found = info.find("device_name");
  const auto* name =
      found == info.end() ? nullptr : std::get_if<std::string>(&found->second);
  return name == nullptr ? "GPU" : *name;
}

} // namespace

Machine this_machine() {
  Machine machine;
  machine.cpu = cpu_name();
  machine.cores = static_cast<int>(std::thread::hardware_concurrency());
  machine.simd = simd_name();
  machine.backend = "cpu";
  if (mx::default_device() == mx::Device::gpu) {
    machine.gpu = gpu_name();
    machine.backend = mx::metal::is_available() ? "metal" : "cuda";
  }
  machine.os = os_name();
  machine.memory_bytes = total_memory();
  machine.mlx_version = mx::version();
  return machine;
}

std::map<std::string, std::string> relevant_environment() {
  std::map<std::string, std::string> found;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    for (std::string_view prefix : {"MLX_", "ZMLX_", "OMP_", "KMP_"}) {
      if (text.substr(0, prefix.size()) == prefix &&
          equals != std::string_view::npos) {
        found.emplace(text.substr(0, equals), text.substr(equals + 1));
      }
    }
  }
  return found;
}

} // namespace zmlx::measure
