// SPDX-License-Identifier: MIT
// How the threads of a step share its tasks.
#include "zmlx/model/decode/cpu_workspace.h"

#include <atomic>

#include <gtest/gtest.h>

namespace zmlx::decode {
namespace {

constexpr int kThreads = 3;

/// A phase of tasks on a team; `held` threads wait until all are done.
class Phase {
 public:
  explicit Phase(int64_t count)
      : phase_(work_.add_phase()), count_(count), runs_(count) {
    work_.spans = std::vector<Span>(kThreads);
    orders_.resize(kThreads);
  }

  void run(const std::vector<int>& held = {}) {
    ThreadTeam team(kThreads);
    std::atomic<int64_t> done{0};
    team.run([&](int thread) {
      Lane lane{work_, team, thread};
      if (std::find(held.begin(), held.end(), thread) != held.end()) {
        while (done < count_) {
          std::this_thread::yield();
        }
      }
      lane.tasks(
          phase_,
          count_,
          [](int64_t) { return cpu::RowsAhead(); },
          [&](int64_t task, const cpu::RowsAhead&) {
            orders_[thread].push_back(task);
            ++runs_[task];
            ++done;
          });
    });
  }

  bool each_ran_once() const {
    return std::all_of(
        runs_.begin(), runs_.end(), [](const auto& n) { return n == 1; });
  }
  const std::vector<int64_t>& order(int thread) const {
    return orders_[thread];
  }

 private:
  Workspace work_;
  int phase_;
  int64_t count_;
  std::vector<std::atomic<int>> runs_;
  std::vector<std::vector<int64_t>> orders_;
};

TEST(Tasks, RunOnceEach) {
  for (int64_t count : {0, 1, 2, 3, 7, 1000}) {
    Phase phase(count);
    phase.run();
    EXPECT_TRUE(phase.each_ran_once()) << count;
  }
}

TEST(Tasks, OfAThreadFollowOneAnother) {
  Phase phase(300);
  phase.run();
  for (int thread = 0; thread < kThreads; ++thread) {
    const auto& order = phase.order(thread);
    for (size_t i = 1; i < order.size() && order[i] / 100 == thread; ++i) {
      EXPECT_EQ(order[i], order[i - 1] + 1);
    }
  }
}

TEST(Tasks, OfAThreadThatWaitsAreTakenFromTheirEnd) {
  Phase phase(90);
  phase.run({1});
  EXPECT_TRUE(phase.each_ran_once());
  EXPECT_TRUE(phase.order(1).empty());
  for (int thread : {0, 2}) {
    int64_t last = 60;
    for (const int64_t task : phase.order(thread)) {
      if (task / 30 == 1) {
        EXPECT_LT(task, last);
        last = task;
      }
    }
  }
}

TEST(Tasks, AreAllDoneByOneThreadWhereTheOthersWait) {
  Phase phase(90);
  phase.run({0, 1});
  EXPECT_TRUE(phase.each_ran_once());
  ASSERT_EQ(phase.order(2).size(), 90u);
  // Its own from the first, then those of the next threads from the last.
  EXPECT_EQ(phase.order(2).front(), 60);
  EXPECT_EQ(phase.order(2)[29], 89);
  EXPECT_EQ(phase.order(2)[30], 29);
  EXPECT_EQ(phase.order(2).back(), 30);
}

TEST(Spans, GiveEveryTaskOnceFromBothEnds) {
  Span span;
  std::vector<int64_t> taken;
  for (int i = 0; i < 5; ++i) {
    taken.push_back(i % 2 == 0 ? span.take_first(5) : span.take_last(5));
  }
  EXPECT_EQ(taken, (std::vector<int64_t>{0, 4, 1, 3, 2}));
  EXPECT_EQ(span.take_first(5), -1);
  EXPECT_EQ(span.take_last(5), -1);
  span.reset();
  EXPECT_EQ(span.take_last(5), 4);
}

} // namespace
} // namespace zmlx::decode
