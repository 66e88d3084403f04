// SPDX-License-Identifier: MIT
#include "zmlx/runtime/thread_team.h"

#include <cstdlib>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "zmlx/base/env.h"
#include "zmlx/base/error.h"

namespace zmlx {
namespace {

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Jobs of one token follow within microseconds, tokens within about 100 us; a
// pause is 20 to 70 ns, so this spins for about 0.3 ms before it parks.
constexpr int kSpins = 8000;
// A barrier is waited for by running threads only; a descheduled one (more
// threads than processors) is given its chance after this many spins.
constexpr int kSpinsBeforeYield = 2000;

int threads_from_environment() {
  const auto text = env("ZMLX_THREADS");
  if (!text) {
    return usable_processors();
  }
  char* end = nullptr;
  const long threads = std::strtol(text->c_str(), &end, 10);
  const int most = usable_processors();
  if (*end || threads < 1 || threads > most) {
    invalid(
        "ZMLX_THREADS",
        "must be 1 to ",
        most,
        ", the processors that this process may use, got '",
        *text,
        "'.");
  }
  return static_cast<int>(threads);
}

std::mutex team_mutex;
int wanted_threads = 0; // 0: not set
std::shared_ptr<ThreadTeam> team;

int wanted() {
  if (wanted_threads == 0) {
    wanted_threads = threads_from_environment();
  }
  return wanted_threads;
}

} // namespace

ThreadTeam::ThreadTeam(int threads) : size_(threads) {
  for (int thread = 1; thread < size_; ++thread) {
    threads_.emplace_back([this, thread] { work(thread); });
  }
}

ThreadTeam::~ThreadTeam() {
  call_back();
  stop_ = true;
  ++job_;
  job_.notify_all();
  for (auto& thread : threads_) {
    thread.join();
  }
}

void ThreadTeam::call_back() {
  std::lock_guard lock(mutex_);
  call_back_locked();
}

void ThreadTeam::call_back_locked() {
  wanted_back_.store(true, std::memory_order_relaxed);
  for (int spins = 0; away_.load(std::memory_order_acquire) != 0; ++spins) {
    relax(spins);
  }
  wanted_back_.store(false, std::memory_order_relaxed);
}

void ThreadTeam::run_erased(Entry entry, void* context, After* after) {
  std::lock_guard lock(mutex_);
  call_back_locked();
  entry_ = entry;
  context_ = context;
  after_ = after;
  away_.store(after ? size_ - 1 : 0, std::memory_order_relaxed);
  running_.store(size_ - 1, std::memory_order_relaxed);
  job_.fetch_add(1, std::memory_order_release);
  job_.notify_all();
  entry(context, 0);
  for (int spins = 0; running_.load(std::memory_order_acquire) != 0; ++spins) {
    relax(spins);
  }
}

void ThreadTeam::work(int thread) {
  uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    while (job_.load(std::memory_order_acquire) == seen) {
      if (++spins < kSpins) {
        pause();
      } else {
        job_.wait(seen, std::memory_order_acquire);
      }
    }
    ++seen;
    if (stop_) {
      return;
    }
    entry_(context_, thread);
    After* const after = after_; // the next job may set another at once
    running_.fetch_sub(1, std::memory_order_release);
    if (after) {
      after->run(thread);
      away_.fetch_sub(1, std::memory_order_release);
    }
  }
}

void ThreadTeam::relax(int spins) {
  if (spins < kSpinsBeforeYield) {
    pause();
  } else {
    std::this_thread::yield();
  }
}

std::shared_ptr<ThreadTeam> thread_team() {
  std::lock_guard lock(team_mutex);
  if (!team) {
    team = std::make_shared<ThreadTeam>(wanted());
  }
  return team;
}

int usable_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    return CPU_COUNT(&set);
  }
#endif
  const auto count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : static_cast<int>(count);
}

int num_threads() {
  std::lock_guard lock(team_mutex);
  return wanted();
}

void set_num_threads(int threads) {
  if (threads < 1 || threads > 1024) {
    invalid("set_num_threads", "threads must be 1 to 1024, got ", threads, '.');
  }
  std::shared_ptr<ThreadTeam> old; // joined outside of the lock
  std::lock_guard lock(team_mutex);
  if (threads != wanted_threads) {
    wanted_threads = threads;
    old = std::exchange(team, nullptr);
  }
}

} // namespace zmlx
