// SPDX-License-Identifier: MIT
// A persistent team of threads for CPU kernels: spins between jobs that follow
// closely, parks when idle.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace zmlx {

/// Runs a job on every thread at once. One job at a time: a second caller
/// waits. A job must not throw, nor start another job.
class ThreadTeam {
 public:
  /// threads >= 1, the calling thread included.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const {
    return size_;
  }

  /// What the threads but the caller's go on with when it has left a job.
  class After {
   public:
    virtual ~After() = default;
    /// thread = 1 .. size() - 1. Ends soon once wanted_back().
    virtual void run(int thread) = 0;
  };

  /// Calls job(thread) with thread = 0 .. size() - 1, each on its own thread,
  /// thread 0 on the caller's, and returns when all have returned. The other
  /// threads then call after->run(), if there is one: the next job calls them
  /// back, and until then or call_back() it must live.
  template <class Job>
  void run(Job&& job, After* after = nullptr) {
    using Plain = std::remove_reference_t<Job>;
    run_erased(
        [](void* context, int thread) {
          (*static_cast<Plain*>(context))(thread);
        },
        const_cast<void*>(static_cast<const void*>(&job)),
        after);
  }
  bool wanted_back() const {
    return wanted_back_.load(std::memory_order_relaxed);
  }
  /// Waits until no thread is in an after.run().
  void call_back();

  /// Waits until every thread of the running job has come here.
  void barrier() {
    barrier([] { return false; });
  }
  /// The same; idle() is called again and again meanwhile, does a little and
  /// returns whether there was something to do.
  template <class Idle>
  void barrier(const Idle& idle) {
    all_.wait(size_, idle, [] { return true; });
  }
  /// That of the threads in an after.run(); false, for all of them, where they
  /// are wanted back.
  template <class Idle>
  bool barrier_of_others(const Idle& idle) {
    return others_.wait(size_ - 1, idle, [this] { return !wanted_back(); });
  }

 private:
  static void relax(int spins);

  class alignas(64) Barrier {
   public:
    // The last of `size` threads calls decide(), whose answer all of them get.
    template <class Idle, class Decide>
    bool wait(int size, const Idle& idle, const Decide& decide) {
      const uint32_t phase = phase_.load(std::memory_order_relaxed);
      if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        answer_ = decide();
        phase_.store(phase + 1, std::memory_order_release);
        return answer_;
      }
      int spins = 0;
      while (phase_.load(std::memory_order_acquire) == phase) {
        if (!idle()) {
          relax(spins++);
        }
      }
      return answer_;
    }

   private:
    std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> phase_{0};
    bool answer_ = true;
  };

  using Entry = void (*)(void* context, int thread);
  void run_erased(Entry entry, void* context, After* after);
  void call_back_locked();
  void work(int thread);

  const int size_;
  std::mutex mutex_; // one job at a time
  Entry entry_ = nullptr;
  void* context_ = nullptr;
  After* after_ = nullptr;
  alignas(64) std::atomic<uint32_t> job_{0}; // number of the newest job
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<int> away_{0}; // threads in an after.run()
  Barrier all_, others_;
  std::atomic<bool> wanted_back_{false};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

/// The team of the library, made on first use with num_threads() threads. It
/// stays valid for its holder when set_num_threads() puts another in place.
std::shared_ptr<ThreadTeam> thread_team();

/// Processors that this process may use.
int usable_processors();

/// Threads of the team: set_num_threads(), else ZMLX_THREADS, else
/// usable_processors(). Throws std::invalid_argument where ZMLX_THREADS is not
/// 1 to usable_processors().
int num_threads();

/// Sets the number of threads, 1 to 1024; throws std::invalid_argument. More
/// than usable_processors() give the same results, slowly: for tests.
void set_num_threads(int threads);

/// The part [begin, end) of `count` that falls to `thread` of `threads`, in
/// multiples of `unit` (but for the last).
struct Range {
  int64_t begin, end;
};
inline Range share(int64_t count, int64_t unit, int thread, int threads) {
  const int64_t units = (count + unit - 1) / unit;
  const int64_t begin = units * thread / threads * unit;
  const int64_t end = units * (thread + 1) / threads * unit;
  return {begin < count ? begin : count, end < count ? end : count};
}

} // namespace zmlx
