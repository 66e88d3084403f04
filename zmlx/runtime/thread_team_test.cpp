// SPDX-License-Identifier: MIT
#include "zmlx/runtime/thread_team.h"

#include <chrono>
#include <ctime>

#include <gtest/gtest.h>

namespace zmlx {
namespace {

TEST(ThreadTeam, RunsEveryThreadOnceAndKeepsBarriersInStep) {
  for (int threads : {1, 2, 5}) {
    ThreadTeam team(threads);
    std::vector<int> calls(threads, 0);
    std::atomic<int> stage{0};
    std::atomic<bool> late{false};
    for (int job = 0; job < 50; ++job) {
      stage = 0;
      team.run([&](int thread) {
        ++calls[thread];
        for (int i = 1; i <= 3; ++i) {
          ++stage;
          team.barrier();
          late = late || stage < i * threads;
        }
      });
    }
    EXPECT_FALSE(late);
    EXPECT_EQ(calls, std::vector<int>(threads, 50));
  }
}

/// Counts its rounds until the team wants its threads back.
class Rounds : public ThreadTeam::After {
 public:
  explicit Rounds(ThreadTeam& team) : team_(team) {}
  void run(int thread) override {
    while (team_.barrier_of_others([] { return false; })) {
      ++rounds[static_cast<size_t>(thread)];
      std::this_thread::yield();
    }
  }
  std::vector<int> rounds = std::vector<int>(3, 0);

 private:
  ThreadTeam& team_;
};

TEST(ThreadTeam, GoesOnWithoutTheCallerUntilTheNextJob) {
  ThreadTeam team(3);
  Rounds rounds(team);
  for (int job = 1; job <= 20; ++job) {
    std::atomic<int> calls{0};
    team.run([&](int) { ++calls; }, &rounds);
    EXPECT_EQ(calls, 3);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (job % 2 == 0) {
      team.call_back();
    } else {
      team.run([&](int) { ++calls; });
      EXPECT_EQ(calls, 6);
    }
    EXPECT_EQ(rounds.rounds[0], 0);
    EXPECT_EQ(rounds.rounds[1], rounds.rounds[2]) << "all leave at one barrier";
  }
  EXPECT_GT(rounds.rounds[1], 0);
}

TEST(ThreadTeam, EndsWhileItsThreadsGoOn) {
  auto team = std::make_unique<ThreadTeam>(3);
  Rounds rounds(*team);
  team->run([](int) {}, &rounds);
  team.reset();
  EXPECT_EQ(rounds.rounds[1], rounds.rounds[2]);
}

TEST(ThreadTeam, TakesCallsFromSeveralThreads) {
  ThreadTeam team(2);
  std::atomic<int> total{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int job = 0; job < 100; ++job) {
        team.run([&](int) { ++total; });
      }
    });
  }
  for (auto& caller : callers) {
    caller.join();
  }
  EXPECT_EQ(total, 800);
}

TEST(ThreadTeam, SleepsWhenIdle) {
  ThreadTeam team(3);
  team.run([](int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const auto before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 10);
}

TEST(ThreadTeam, RefusesAnImpossibleNumberOfThreads) {
  EXPECT_THROW(set_num_threads(0), std::invalid_argument);
  EXPECT_THROW(set_num_threads(1025), std::invalid_argument);
  set_num_threads(2);
  EXPECT_EQ(thread_team()->size(), 2);
}

TEST(Share, CoversEverythingOnceInWholeUnits) {
  for (int64_t count : {0, 1, 15, 16, 17, 1000}) {
    int64_t next = 0;
    for (int thread = 0; thread < 3; ++thread) {
      const auto part = share(count, 16, thread, 3);
      EXPECT_EQ(part.begin, next);
      EXPECT_TRUE(part.begin % 16 == 0 || part.begin == count);
      next = part.end;
    }
    EXPECT_EQ(next, count);
  }
}

} // namespace
} // namespace zmlx
