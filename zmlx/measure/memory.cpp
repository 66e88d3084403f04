// SPDX-License-Identifier: MIT
#include "zmlx/measure/memory.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include <unistd.h>

#include "mlx/mlx.h"

#if defined(__APPLE__)
#include <mach/mach.h>
#include <sys/resource.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace zmlx::measure {

namespace mx = mlx::core;

#if defined(__APPLE__)

uint64_t resident_memory() {
  mach_task_basic_info info;
  mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
  const auto status = task_info(
      mach_task_self(),
      MACH_TASK_BASIC_INFO,
      reinterpret_cast<task_info_t>(&info),
      &count);
  return status == KERN_SUCCESS ? info.resident_size : 0;
}

uint64_t peak_resident_memory() {
  rusage usage{};
  // Bytes on macOS, where Linux counts kilobytes.
  return getrusage(RUSAGE_SELF, &usage) == 0
      ? static_cast<uint64_t>(usage.ru_maxrss)
      : 0;
}

bool reset_peak_resident_memory() {
  return false;
}

#else

namespace {

// The value of a line "Name:   123 kB" in bytes; 0 when there is none.
uint64_t kilobyte_line(const char* path, const std::string& name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, name.size(), name) == 0 && line[name.size()] == ':') {
      return std::strtoull(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
    }
  }
  return 0;
}

} // namespace

uint64_t resident_memory() {
  return kilobyte_line("/proc/self/status", "VmRSS");
}

uint64_t peak_resident_memory() {
  return kilobyte_line("/proc/self/status", "VmHWM");
}

bool reset_peak_resident_memory() {
  // 5 sets VmHWM to VmRSS: proc(5), /proc/pid/clear_refs.
  std::ofstream out("/proc/self/clear_refs");
  out << '5' << std::flush;
  return out.good();
}

#endif

uint64_t total_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_size = sysconf(_SC_PAGESIZE);
  return pages > 0 && page_size > 0
      ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_size)
      : 0;
}

uint64_t peak_memory() {
  return mx::default_device() == mx::Device::gpu ? mx::get_peak_memory()
                                                 : peak_resident_memory();
}

bool reset_peak_memory() {
  mx::clear_cache();
  if (mx::default_device() == mx::Device::gpu) {
    mx::reset_peak_memory();
    return true;
  }
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
  return reset_peak_resident_memory();
}

} // namespace zmlx::measure
