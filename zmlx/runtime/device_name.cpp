// SPDX-License-Identifier: MIT
#include "zmlx/runtime/device_name.h"

#include <fstream>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace zmlx {

bool on_a_gpu() {
  return mx::default_device() == mx::Device(mx::Device::gpu);
}

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

std::string device_name(const mx::Device& device) {
  if (device == mx::Device::cpu) {
    return cpu_name();
  }
  const auto& info = mx::device_info(device);
  const auto found = info.find("device_name");
  const auto* name =
      found == info.end() ? nullptr : std::get_if<std::string>(&found->second);
  return name == nullptr ? "GPU" : *name;
}

const char* backend_name(const mx::Device& device) {
  return device == mx::Device::cpu ? "cpu"
      : mx::metal::is_available()  ? "metal"
                                   : "cuda";
}

} // namespace zmlx
