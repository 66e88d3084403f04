// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/memory.h"

#include <limits>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/model/checkpoint/checkpoint.h"

namespace zmlx {
namespace {

constexpr uint64_t kMegabyte = 1 << 20;

// A root folder with the system's files in it.
class Memory : public ::testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) {
    const std::filesystem::path path = root_.file(name);
    std::filesystem::create_directories(path.parent_path());
    write_file(path.string(), text);
  }
  void machine(uint64_t megabytes) {
    put("proc/meminfo",
        concat(
            "MemTotal:       99999999 kB\nMemFree:  1 kB\nMemAvailable:   ",
            megabytes * 1024,
            " kB\nBuffers: 5 kB\n"));
  }
  uint64_t megabytes() const {
    return available_memory(root_.path()) / kMegabyte;
  }

  TemporaryFolder root_;
};

#ifndef __APPLE__

TEST_F(Memory, IsUnlimitedWhenNothingTells) {
  EXPECT_EQ(
      available_memory(root_.path()), std::numeric_limits<uint64_t>::max());
}

TEST_F(Memory, IsWhatTheMachineHas) {
  machine(1000);
  EXPECT_EQ(megabytes(), 1000u);
}

TEST_F(Memory, ObeysVersion2GroupsAndTheirParents) {
  machine(1000);
  put("proc/self/cgroup", "0::/outer/inner\n");
  put("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  put("sys/fs/cgroup/outer/memory.max", concat(500 * kMegabyte, '\n'));
  put("sys/fs/cgroup/outer/memory.current", concat(200 * kMegabyte, '\n'));
  EXPECT_EQ(megabytes(), 300u);
  // Cached files can be dropped, so they do not count as used.
  put("sys/fs/cgroup/outer/memory.stat",
      concat(
          "anon 5\nfile 99\nactive_file ",
          60 * kMegabyte,
          "\ninactive_file ",
          90 * kMegabyte,
          "\n"));
  EXPECT_EQ(megabytes(), 450u);
  put("sys/fs/cgroup/outer/inner/memory.max", concat(100 * kMegabyte, '\n'));
  EXPECT_EQ(megabytes(), 100u);
  machine(50);
  EXPECT_EQ(megabytes(), 50u);
}

TEST_F(Memory, ObeysTheRootOfAContainersMount) {
  machine(1000);
  put("proc/self/cgroup", "0::/../elsewhere\n");
  put("sys/fs/cgroup/memory.max", concat(70 * kMegabyte, '\n'));
  EXPECT_EQ(megabytes(), 70u);
}

TEST_F(Memory, ObeysVersion1Groups) {
  machine(1000);
  put("proc/self/cgroup",
      "12:cpu,cpuacct:/x\n4:memory:/docker/abc\n1:name=systemd:/y\n");
  const std::string group = "sys/fs/cgroup/memory/docker/abc/";
  put(group + "memory.limit_in_bytes", concat(400 * kMegabyte, '\n'));
  put(group + "memory.usage_in_bytes", concat(150 * kMegabyte, '\n'));
  put(group + "memory.stat",
      concat(
          "total_inactive_file ", 50 * kMegabyte, "\ntotal_active_file 0\n"));
  EXPECT_EQ(megabytes(), 300u);
  // No limit is a huge number there.
  put(group + "memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(megabytes(), 1000u);
}

TEST_F(Memory, AnOverfullGroupHasNothingLeft) {
  machine(1000);
  put("proc/self/cgroup", "0::/\n");
  put("sys/fs/cgroup/memory.max", "1000\n");
  put("sys/fs/cgroup/memory.current", "5000\n");
  EXPECT_EQ(available_memory(root_.path()), 0u);
}

#endif

TEST_F(Memory, OfThisMachineIsSomething) {
  EXPECT_GT(available_memory(), 10 * kMegabyte);
}

TEST_F(Memory, NeedIsWeightsAndATenth) {
  write_file(root_.file("config.json"), "{}");
  save_safetensors(root_.file("model.safetensors"), {{"a", mx::zeros({1000})}});
  const auto checkpoint = Checkpoint::open(root_.path());
  EXPECT_EQ(memory_need(checkpoint).needed, 4400u);
  EXPECT_EQ(memory_need(checkpoint, 100).needed, 4500u);
  EXPECT_NO_THROW(check_memory(checkpoint));
}

TEST_F(Memory, TheErrorNamesBothNumbers) {
  EXPECT_NO_THROW(check_memory(MemoryNeed{100, 100}, "m"));
  try {
    check_memory(MemoryNeed{5190000000, 4000000000}, "models/big");
    FAIL();
  } catch (const BackendError& error) {
    EXPECT_STREQ(
        error.what(),
        "models/big: must have 5.19 GB of free memory for weights and working "
        "space, got 4.00 GB. Try: a model of fewer bits, or close other "
        "programs.");
  }
}

} // namespace
} // namespace zmlx
