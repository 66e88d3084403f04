// SPDX-License-Identifier: MIT
#include "zmlx/measure/machine.h"

#include <string_view>
#include <thread>

#include <sys/utsname.h>

#include <hwy/targets.h>

#include "mlx/mlx.h"
#include "zmlx/base/error.h"
#include "zmlx/measure/memory.h"
#include "zmlx/runtime/device_name.h"

extern char** environ;

namespace zmlx::measure {
namespace {

namespace mx = mlx::core;

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

} // namespace

Machine this_machine() {
  Machine machine;
  machine.cpu = cpu_name();
  machine.cores = static_cast<int>(std::thread::hardware_concurrency());
  machine.simd = simd_name();
  machine.backend = backend_name(mx::default_device());
  if (mx::default_device() == mx::Device::gpu) {
    machine.gpu = device_name(mx::default_device());
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
