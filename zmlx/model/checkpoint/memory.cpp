// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/model/checkpoint/checkpoint.h"

namespace zmlx {
namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

// The number alone in a file; none for "max" or a missing file.
std::optional<uint64_t> number_in(const std::string& path) {
  std::ifstream in(path);
  uint64_t value = 0;
  return in >> value ? std::optional(value) : std::nullopt;
}

// The number after a word at the start of a line.
std::optional<uint64_t> number_after(
    const std::string& path,
    std::string_view word) {
  std::ifstream in(path);
  std::string first;
  while (in >> first) {
    uint64_t value = 0;
    if (first == word && in >> value) {
      return value;
    }
    in.clear();
    in.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

struct GroupFiles {
  const char *limit, *used, *cache_on, *cache_off;
};
constexpr GroupFiles kVersion2 = {
    "memory.max",
    "memory.current",
    "active_file",
    "inactive_file"};
constexpr GroupFiles kVersion1 = {
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_active_file",
    "total_inactive_file"};

uint64_t left_in_group(const std::string& folder, const GroupFiles& files) {
  const auto limit = number_in(concat(folder, '/', files.limit));
  if (!limit) {
    return kNoLimit;
  }
  const std::string stat = folder + "/memory.stat";
  const uint64_t used = number_in(concat(folder, '/', files.used)).value_or(0);
  const uint64_t cached = number_after(stat, files.cache_on).value_or(0) +
      number_after(stat, files.cache_off).value_or(0);
  const uint64_t kept = used - std::min(used, cached);
  return *limit - std::min(*limit, kept);
}

// The least that is left in a group and in those above it. A path that leads
// nowhere (the group of another namespace) falls back to the mount's root.
uint64_t left_in_groups(
    const std::string& mount,
    std::string path,
    const GroupFiles& files) {
  uint64_t least = left_in_group(mount, files);
  while (path.size() > 1) {
    least = std::min(least, left_in_group(mount + path, files));
    path.resize(path.rfind('/'));
  }
  return least;
}

uint64_t left_in_control_groups(const std::string& root) {
  uint64_t least = kNoLimit;
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    // "0::/path" for version 2, "4:memory:/path" for version 1.
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string kinds = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    if (path.empty() || path[0] != '/') {
      continue;
    }
    if (kinds.empty()) {
      least = std::min(
          least, left_in_groups(root + "/sys/fs/cgroup", path, kVersion2));
    }
    for (const auto& kind : split(kinds, ',')) {
      if (kind == "memory") {
        least = std::min(
            least,
            left_in_groups(root + "/sys/fs/cgroup/memory", path, kVersion1));
      }
    }
  }
  return least;
}

} // namespace

uint64_t available_memory(const std::string& root) {
#ifdef __APPLE__
  uint64_t bytes = 0;
  size_t size = sizeof bytes;
  if (sysctlbyname("hw.memsize", &bytes, &size, nullptr, 0) == 0) {
    return bytes;
  }
#endif
  const auto kilobytes = number_after(root + "/proc/meminfo", "MemAvailable:");
  const uint64_t machine = kilobytes ? *kilobytes * 1024 : kNoLimit;
  return std::min(machine, left_in_control_groups(root));
}

MemoryNeed memory_need(const Checkpoint& checkpoint, uint64_t extra) {
  const uint64_t weights = checkpoint.total_bytes();
  return {weights + weights / 10 + extra, available_memory()};
}

void check_memory(const Checkpoint& checkpoint, uint64_t extra) {
  check_memory(memory_need(checkpoint, extra), checkpoint.folder());
}

void check_memory(const MemoryNeed& need, const std::string& model) {
  if (need.needed > need.available) {
    throw BackendError(concat(
        model,
        ": must have ",
        human_bytes(need.needed),
        " of free memory for weights and working space, got ",
        human_bytes(need.available),
        ". Try: a model of fewer bits, or close other programs."));
  }
}

} // namespace zmlx
