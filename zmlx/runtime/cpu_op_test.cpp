// SPDX-License-Identifier: MIT
#include "zmlx/runtime/cpu_op.h"

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#ifdef __linux__
#include <sys/resource.h>
#endif

#include <gtest/gtest.h>

namespace zmlx {
namespace {

// 2 MB, more than is copied sooner than waited for.
constexpr int kSize = 1 << 19;

/// Adds 1 to the first value of a buffer that it takes over, slowly.
mx::array slow_step(mx::array state) {
  return cpu_op(
      "SlowStep",
      {std::move(state)},
      {{{kSize}, mx::float32, 0}},
      [](const auto&, auto& out) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        out[0].template data<float>()[0] += 1;
      })[0];
}

mx::array fresh() {
  mx::array state = mx::zeros({kSize});
  state.eval();
  return state;
}

TEST(CpuOp, StepThatRunsAheadTakesOverTheBufferOfTheOneBefore) {
  mx::array state = fresh();
  const float* buffer = state.data<float>();
  for (int i = 0; i < 3; ++i) {
    state = slow_step(std::move(state));
    mx::async_eval(state);
  }
  state.wait();
  EXPECT_EQ(state.data<float>(), buffer);
  EXPECT_EQ(buffer[0], 3);
}

TEST(CpuOp, LeavesABufferThatSomebodyHolds) {
  const mx::array held = fresh();
  mx::array state = slow_step(held);
  state.eval();
  EXPECT_NE(state.data<float>(), held.data<float>());
  EXPECT_EQ(state.data<float>()[0], 1);
  EXPECT_EQ(held.data<float>()[0], 0);
}

/// Of a step whose buffer somebody holds: it is waited for while others run.
double seconds_to_build(const mx::array& held) {
  const auto start = std::chrono::steady_clock::now();
  mx::array state = slow_step(held);
  mx::async_eval(state);
  const std::chrono::duration<double> taken =
      std::chrono::steady_clock::now() - start;
  state.wait();
  return taken.count();
}

TEST(CpuOp, HandsOnWhatATaskThrowsAndEnds) {
  const mx::array held = fresh();
  mx::array view = mx::reshape(held, {2, kSize / 2}); // holds the buffer
  view.eval();
  EXPECT_LT(seconds_to_build(held), 0.2);
  mx::array thrown = cpu_op(
      "Throwing", {held}, {{{kSize}, mx::float32, 0}}, [](const auto&, auto&) {
        throw std::runtime_error("of the task");
      })[0];
  try {
    thrown.eval();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const std::exception& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("of the task"), text.npos) << text;
  }
  EXPECT_LT(seconds_to_build(held), 0.2) << "it counts as running";
}

#ifdef RUSAGE_THREAD
// Who woke every millisecond cost a step on two busy processors 7% of its time.
TEST(CpuOp, SleepsWhileItWaitsForABuffer) {
  mx::array state = slow_step(fresh());
  mx::async_eval(state);
  rusage before{}, after{};
  getrusage(RUSAGE_THREAD, &before);
  state = slow_step(std::move(state));
  mx::async_eval(state);
  getrusage(RUSAGE_THREAD, &after);
  state.wait();
  EXPECT_LT(after.ru_nvcsw - before.ru_nvcsw, 10);
}
#endif

} // namespace
} // namespace zmlx
