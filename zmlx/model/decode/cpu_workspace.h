// SPDX-License-Identifier: MIT
// What the stages of a decode program share on the CPU: vectors of the token,
// and each thread's view of the work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "zmlx/kernels/common/aligned.h"
#include "zmlx/model/decode/cpu_executor.h"
#include "zmlx/model/decode/cpu_matrix.h"

namespace zmlx::decode {

/// Rows of floats, one for each sequence of the batch (or pair of a sequence
/// and an expert).
class Rows {
 public:
  void reserve(int count, int64_t width) {
    width_ = std::max(width_, (width + 15) / 16 * 16);
    count_ = std::max(count_, count);
    values_.resize(static_cast<size_t>(count_ * width_));
  }
  float* operator[](int64_t row) {
    return values_.data() + row * width_;
  }

 private:
  AlignedVector<float> values_;
  int64_t width_ = 0;
  int count_ = 0;
};

/// The experts of a step: pairs of a sequence and one of its experts, and the
/// same pairs grouped by expert, so that each expert's weights are read once.
struct Routing {
  struct Group {
    int expert;
    int first, count; // of `order`
  };
  std::vector<int> ids; // (batch, top_k)
  std::vector<float> weights; // (batch, top_k)
  std::vector<int> order; // pairs, sorted by expert
  std::vector<Group> groups;
};

/// Cosines and sines of the step's position, (head_dim / 2) each: one row for
/// all sequences, or one a sequence where they start at different rows.
struct Rotation {
  attention::Rope rope;
  std::vector<float> frequencies; // (head_dim / 2)
  std::vector<float> cosines = {}, sines = {};

  int half() const {
    return static_cast<int>(frequencies.size());
  }
  /// Where the row of a sequence begins.
  int64_t row_of(int64_t sequence) const {
    return cosines.size() == static_cast<size_t>(half()) ? 0
                                                         : sequence * half();
  }
};

/// Which tasks of one thread's share are taken: it takes them in order, threads
/// that are done with theirs take the last ones.
class alignas(64) Span {
 public:
  /// The next task of `count`, or -1.
  int64_t take_first(int64_t count) {
    return take(count, 1);
  }
  int64_t take_last(int64_t count) {
    return take(count, int64_t{1} << 32);
  }
  void reset() {
    taken_.store(0, std::memory_order_relaxed);
  }

 private:
  int64_t take(int64_t count, int64_t one) {
    int64_t taken = taken_.load(std::memory_order_relaxed);
    for (;;) {
      const int64_t first = taken & 0xffffffff, last = taken >> 32;
      if (first + last >= count) {
        return -1;
      }
      if (taken_.compare_exchange_weak(
              taken, taken + one, std::memory_order_relaxed)) {
        return one == 1 ? first : count - 1 - last;
      }
    }
  }

  std::atomic<int64_t> taken_{0}; // at the start, and << 32 at the end
};

/// The likeliest token among those whose logits a thread computed.
struct alignas(64) Likeliest {
  float logit = -INFINITY;
  int32_t token = -1;
};

struct Workspace {
  Step step;
  Rows h; // the residual stream
  Rows normed; // its norm
  Rows mixed; // what a mixer hands on
  Rows queries, keys, values;
  Rows partials; // of attention: a row a sequence and key head
  Rows scores; // of the router
  Rows projected; // of a convolution
  Rows hidden, up; // a row a pair: what gate and up give, then their product
  Rows outputs; // a row a pair: what down gives
  PreparedPool x; // of normed or mixed
  PreparedPool hidden_prepared; // a row a pair
  std::vector<Rotation> rotations;

  /// Tasks that the threads share; see Lane::tasks().
  int add_phase() {
    return num_phases++;
  }
  int add_rotation(const attention::Spec& spec);

  int num_phases = 0;
  /// While stages are compiled: whether the last one prepares what it mixed.
  bool mixed_prepared = false;
  /// Experts a sequence goes to: in the last stage compiled, and the most.
  int top_k = 1, most_top_k = 1;
  /// One a phase and thread, (phase, thread); fresh before a step.
  std::vector<Span> spans;
  std::vector<Likeliest> likeliest; // a thread, of a batch of one

  void start_phases(int threads) {
    const auto count = static_cast<size_t>(num_phases * threads);
    if (spans.size() != count) {
      spans = std::vector<Span>(count);
    }
    for (auto& span : spans) {
      span.reset();
    }
  }
};

/// Weights that a thread will read next. It asks for them where it would leave
/// memory idle: while it waits for others, or prepares a vector.
class Stream {
 public:
  void start(const cpu::RowsAhead& ahead) {
    at_ = static_cast<const char*>(ahead.words);
    end_ = at_ + std::min(ahead.bytes, kMost);
  }
  /// Asks for `lines` lines at most; false where there are none.
  bool ask(int lines) {
    if (at_ == end_) {
      return false;
    }
    for (; lines > 0 && at_ < end_; --lines, at_ += kLine) {
      __builtin_prefetch(at_, 0, 2); // to L2
    }
    at_ = std::min(at_, end_);
    return true;
  }

 private:
  static constexpr int64_t kLine = 64;
  static constexpr int64_t kMost = int64_t{128} << 10; // L2 has some more

  const char *at_ = nullptr, *end_ = nullptr;
};

/// Lines that memory brings while a chunk of columns is prepared.
constexpr int kLinesAPart = 20;

class CpuStage;

/// One thread of a running step.
struct Lane {
  Workspace& work;
  ThreadTeam& team;
  const int thread;
  const Step& step = work.step;
  /// Whether it goes ahead of the next step, without the first thread and until
  /// they are wanted back.
  const bool ahead = false;
  Routing routing = {}; // the same on every thread
  Stream stream = {};
  AlignedVector<float> scratch = {};
  std::vector<float*> outputs = {}; // of the product under way
  std::vector<const cpu::PreparedVector*> inputs = {}; // likewise
  std::vector<int> sequences = {}; // likewise
  const CpuStage* next_stage = nullptr; // that has weights

  /// Its part of what is done by all threads that are here.
  Range share_of(int64_t count, int64_t unit) const {
    return share(count, unit, thread - ahead, team.size() - ahead);
  }
  /// Its part of tasks, of which others may take some.
  Range share_of_tasks(int64_t count) const {
    return share(count, 1, thread, team.size());
  }
  int batch() const {
    return step.batch;
  }
  /// Waits for the other threads; false where they are wanted back: tasks may
  /// be left, so that what comes after them must not be done.
  bool barrier() {
    const auto idle = [this] { return stream.ask(kLinesAWait); };
    if (ahead) {
      return team.barrier_of_others(idle);
    }
    team.barrier(idle);
    return true;
  }
  /// Calls run(task, next) for tasks of 0 .. count - 1 that no other thread
  /// takes. Each has a share of tasks that follow one another, so that memory
  /// is read in long streams; threads that a neighbour of the machine slows
  /// down lose some of theirs. next = first_of(the task that probably comes
  /// then), or after() at the end.
  template <class First, class Run>
  void tasks(int phase, int64_t count, const First& first_of, const Run& run) {
    const int threads = team.size();
    Span* spans = work.spans.data() + phase * threads;
    const auto mine = share_of_tasks(count);
    const int64_t own = mine.end - mine.begin;
    for (int64_t i; stays() && (i = spans[thread].take_first(own)) >= 0;) {
      const int64_t task = mine.begin + i;
      run(task, i + 1 < own ? first_of(task + 1) : after());
    }
    for (int other = 1; other < threads; ++other) {
      const int victim = (thread + other) % threads;
      const auto its = share(count, 1, victim, threads);
      const int64_t size = its.end - its.begin;
      for (int64_t i; stays() && (i = spans[victim].take_last(size)) >= 0;) {
        run(its.begin + i, after());
      }
    }
    stream.start(after());
  }
  /// What the next stage reads first.
  cpu::RowsAhead after() const;
  float* floats(int64_t count) {
    if (scratch.size() < static_cast<size_t>(count)) {
      scratch.resize(static_cast<size_t>(count));
    }
    return scratch.data();
  }

 private:
  bool stays() const {
    return !ahead || !team.wanted_back();
  }
  // What memory brings in the time of a look at the barrier.
  static constexpr int kLinesAWait = 4;
};

/// Pairs of blocks of rows, each a task: one vector goes over both at once.
struct Blocks {
  static constexpr int64_t kRows = 2 * cpu::kBlockRows;
  int64_t rows;

  int64_t count() const {
    return (rows + kRows - 1) / kRows;
  }
  Range operator[](int64_t task) const {
    return {std::min(rows, task * kRows), std::min(rows, (task + 1) * kRows)};
  }
};

/// Calls run(block, next) for the blocks of `rows` rows that this thread takes;
/// ahead(row) tells where a row's weights are.
template <class Ahead, class Run>
void for_each_block(
    Lane& lane,
    int phase,
    int64_t rows,
    const Ahead& ahead,
    const Run& run) {
  const Blocks blocks{rows};
  lane.tasks(
      phase,
      blocks.count(),
      [&](int64_t task) { return ahead(blocks[task].begin); },
      [&](int64_t task, const cpu::RowsAhead& next) {
        run(blocks[task], next);
      });
}

/// The rows that are a thread's own in for_each_block().
inline Range own_rows(const Lane& lane, int64_t rows) {
  const Blocks blocks{rows};
  const auto mine = lane.share_of_tasks(blocks.count());
  return {blocks[mine.begin].begin, blocks[mine.end].begin};
}

/// lane.outputs[i][row - begin] = (W x)[row] for the vectors x =
/// vectors[indices ? indices[i] : i].
void multiply(
    Lane& lane,
    const MatrixView& w,
    const std::vector<cpu::PreparedVector>& vectors,
    const int* indices,
    Range rows,
    const cpu::RowsAhead& next);

/// Prepares norm(rows), or the rows themselves without one, for matrices of
/// some pool indices of Workspace::x.
class Preparation {
 public:
  Preparation(const Norm* norm, std::initializer_list<const Matrix*> matrices);
  /// Shares the columns among the threads; ends with a barrier.
  void run(Lane& lane, Rows& rows) const;
  /// Columns [begin, end), multiples of kColumns (end may be the last), of a
  /// sequence's values.
  void prepare(
      Lane& lane,
      int sequence,
      const float* values,
      int64_t begin,
      int64_t end) const;

  /// A chunk of a prepared vector of any format.
  static constexpr int64_t kColumns = 128;

 private:
  const float* weight_ = nullptr;
  float eps_ = 0;
  std::vector<int> pool_indices_;
  int64_t cols_;
};

/// The values of an optional bias, or null.
inline const float* data_of(const std::optional<mx::array>& bias) {
  return bias ? bias->data<float>() : nullptr;
}

/// A stage ready to run. Each thread of the team calls run() with its lane;
/// after it a barrier follows.
class CpuStage {
 public:
  virtual ~CpuStage() = default;
  virtual void run(Lane& lane) const = 0;
  /// The weights that a thread reads first, as far as they are known before.
  virtual cpu::RowsAhead first(const Lane& lane) const = 0;
  /// Prepares columns of what the stage before hands on, where that stage does
  /// so; see Preparation::prepare().
  virtual void prepare(Lane&, int64_t /*begin*/, int64_t /*end*/) const {}
  /// Grows the workspace for a batch at the step's position.
  virtual void reserve(Workspace& work, int batch) const = 0;
  /// Bytes of weights that one sequence's step reads.
  virtual uint64_t nbytes() const = 0;
  /// Bytes of weights that the lane's last run read.
  virtual uint64_t read_nbytes(const Lane&) const {
    return nbytes();
  }
  /// Bytes of caches that a step reads.
  virtual uint64_t cache_nbytes(const Step&) const {
    return 0;
  }
};

inline cpu::RowsAhead Lane::after() const {
  return next_stage ? next_stage->first(*this) : cpu::RowsAhead();
}

using CpuStagePtr = std::unique_ptr<CpuStage>;
CpuStagePtr compile(const EmbedStage& stage, Workspace& work);
CpuStagePtr compile(const ConvStage& stage, Workspace& work);
CpuStagePtr compile(const QkvStage& stage, Workspace& work);
CpuStagePtr compile(const AttendStage& stage, Workspace& work);
CpuStagePtr compile(const MixStage& stage, Workspace& work);
CpuStagePtr compile(const ExpertsStage& stage, Workspace& work);
CpuStagePtr compile(const CombineStage& stage, Workspace& work);
CpuStagePtr compile(const HeadStage& stage, Workspace& work);

} // namespace zmlx::decode
