// SPDX-License-Identifier: MIT
#include "zmlx/measure/machine.h"

#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "zmlx/measure/memory.h"
#include "zmlx/measure/roofline.h"

namespace zmlx::measure {
namespace {

constexpr size_t kBlock = size_t{96} << 20;

// Not from the heap, which may keep what is freed (sanitizers do).
class TouchedBlock {
 public:
  TouchedBlock()
      : data_(mmap(
            nullptr,
            kBlock,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS,
            -1,
            0)) {
    if (data_ != MAP_FAILED) {
      std::memset(data_, 1, kBlock);
    }
  }
  TouchedBlock(const TouchedBlock&) = delete;
  ~TouchedBlock() {
    munmap(data_, kBlock);
  }

 private:
  void* data_;
};

TEST(Memory, PeakHoldsWhatWasFreedAndCanBeReset) {
  if (!reset_peak_resident_memory()) {
    GTEST_SKIP() << "the peak cannot be reset on this system";
  }
  const uint64_t before = peak_resident_memory();
  ASSERT_GT(before, 0u);
  {
    const TouchedBlock block;
    EXPECT_GE(resident_memory(), before / 2 + kBlock / 2);
  }
  EXPECT_GE(peak_resident_memory(), before + kBlock / 2);
  ASSERT_TRUE(reset_peak_memory());
  EXPECT_LT(peak_resident_memory(), before + kBlock / 2);
  // On a CPU both are the process's; reading them may itself take a page.
  EXPECT_NEAR(double(peak_memory()), double(peak_resident_memory()), 1e6);
}

TEST(Memory, OfTheMachineIsMoreThanOfTheProcess) {
  EXPECT_GT(total_memory(), resident_memory());
}

TEST(Roofline, TakesTheLoopOfTheHighestMedian) {
  const auto best =
      best_of({{"lucky", {10, 90, 20}}, {"steady", {30, 40, 50}}});
  EXPECT_EQ(best.loop, "steady");
  EXPECT_EQ(best.bytes_per_second, 40);
  EXPECT_EQ(best.best_pass, 90);
  EXPECT_EQ(best_of({}).bytes_per_second, 0);
}

TEST(Roofline, ReadsWithEveryLoop) {
  RooflineOptions options;
  options.buffer_bytes = size_t{8} << 20;
  options.seconds = 0.04;
  options.least_seconds = 0;
  options.threads = 3;
  ReadPasses cpu(options, 2);
  EXPECT_EQ(cpu.held_bytes(), 0u);
  cpu.add_cpu();
  cpu.add_cpu();
  EXPECT_EQ(cpu.held_bytes(), 2 * options.buffer_bytes);
  EXPECT_GT(cpu.best().gb_per_second(), 0.01);
  EXPECT_GE(cpu.best().best_pass, cpu.best().bytes_per_second);
  EXPECT_NE(cpu.best().loop.find(", 3 threads"), std::string::npos);
  ReadPasses device(options);
  device.add_device();
  EXPECT_GT(device.best().gb_per_second(), 0.001);
}

TEST(Machine, HasNames) {
  const Machine machine = this_machine();
  EXPECT_GT(machine.cores, 0);
  EXPECT_FALSE(machine.simd.empty());
  EXPECT_FALSE(machine.os.empty());
  EXPECT_FALSE(machine.mlx_version.empty());
  EXPECT_FALSE(machine.device().empty());
}

TEST(Machine, KeepsOnlyVariablesThatMatter) {
  setenv("ZMLX_THREADS", "2=x", 1);
  setenv("NOT_OURS", "1", 1);
  const auto found = relevant_environment();
  unsetenv("ZMLX_THREADS");
  unsetenv("NOT_OURS");
  EXPECT_EQ(found.at("ZMLX_THREADS"), "2=x");
  EXPECT_EQ(found.count("NOT_OURS"), 0u);
}

} // namespace
} // namespace zmlx::measure
