// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cpu_executor.h"

#include <chrono>
#include <cmath>
#include <mutex>

#include "zmlx/kernels/attention/cached_head.h"
#include "zmlx/model/decode/cpu_lookahead.h"
#include "zmlx/model/decode/cpu_workspace.h"

namespace zmlx::decode {
namespace {

using Clock = std::chrono::steady_clock;

// Calls visit(array) for every array of a stage.
template <class Visit>
struct ArraysOf {
  Visit visit;

  void one(const std::optional<mx::array>& array) const {
    if (array) {
      visit(*array);
    }
  }
  void one(const Weight& weight) const {
    if (const auto* packed = std::get_if<quant::QuantizedArrays>(&weight)) {
      if (packed->blocks) {
        return; // their rows may not be there, nor are they read
      }
      visit(packed->words);
      visit(packed->scales);
      visit(packed->biases);
    } else {
      visit(std::get<mx::array>(weight));
    }
  }
  void one(const Projection& projection) const {
    one(projection.weight);
    one(projection.bias);
  }
  void operator()(const EmbedStage& stage) const {
    one(stage.table);
  }
  void operator()(const ConvStage& stage) const {
    visit(stage.norm.weight);
    one(stage.in);
    visit(stage.taps);
    one(stage.bias);
  }
  void operator()(const QkvStage& stage) const {
    visit(stage.norm.weight);
    one(stage.q);
    one(stage.k);
    one(stage.v);
  }
  void operator()(const AttendStage& stage) const {
    one(stage.query_norm);
    one(stage.key_norm);
  }
  void operator()(const MixStage& stage) const {
    one(stage.out);
  }
  void operator()(const ExpertsStage& stage) const {
    visit(stage.norm.weight);
    if (stage.router) {
      one(stage.router->weight);
      one(stage.router->bias);
    }
    one(stage.gate);
    one(stage.up);
  }
  void operator()(const CombineStage& stage) const {
    one(stage.down);
  }
  void operator()(const HeadStage& stage) const {
    visit(stage.norm.weight);
    one(stage.out);
  }
};

void evaluate(const Program& program) {
  std::vector<mx::array> arrays;
  for (const auto& stage : program.stages) {
    const auto collect = [&](const mx::array& a) { arrays.push_back(a); };
    std::visit(ArraysOf<decltype(collect)>{collect}, stage);
  }
  mx::eval(arrays);
}

// As MLX's rope computes them: halves are rotated, angles in float32.
void rotate_to(const Step& step, Rotation& rotation) {
  const int half = rotation.half();
  const float scale = rotation.rope.scale;
  const int rows = step.starts.empty() ? 1 : step.batch;
  rotation.cosines.resize(static_cast<size_t>(rows * half));
  rotation.sines.resize(static_cast<size_t>(rows * half));
  for (int row = 0; row < rows; ++row) {
    const auto position =
        static_cast<float>(step.position - step.start_of(row)) * scale;
    for (int i = 0; i < half; ++i) {
      const auto at = static_cast<size_t>(row * half + i);
      const float angle =
          position * rotation.frequencies[static_cast<size_t>(i)];
      rotation.cosines[at] = std::cos(angle);
      rotation.sines[at] = std::sin(angle);
    }
  }
}

} // namespace

class CpuExecutor::Impl {
 public:
  explicit Impl(std::shared_ptr<const Program> source)
      : program(std::move(source)) {
    evaluate(*program);
    for (const auto& stage : program->stages) {
      stages_.push_back(
          std::visit([&](const auto& s) { return compile(s, work_); }, stage));
    }
    next_.resize(stages_.size());
    for (size_t i = stages_.size() - 1; i > 0; --i) {
      next_[i - 1] = stages_[i]->nbytes() > 0 ? stages_[i].get() : next_[i];
    }
    lookahead_.emplace(*program, work_, stages_, next_);
  }

  ~Impl() {
    call_back();
  }

  void run(const Step& step) {
    std::lock_guard lock(mutex_);
    call_back();
    team_ = thread_team();
    const size_t first = start(step, team_->size());
    if (timing_) {
      auto last = Clock::now();
      run_stages(first, [&](size_t i, const Lane& lane) {
        if (lane.thread == 0) {
          const auto now = Clock::now();
          seconds_[i] += std::chrono::duration<double>(now - last).count();
          bytes_[i] += stages_[i]->read_nbytes(lane);
          last = now;
        }
      });
      ++steps_;
    } else {
      run_stages(first, [](size_t, const Lane&) {});
    }
  }

  void start_timing() {
    std::lock_guard lock(mutex_);
    seconds_.assign(stages_.size(), 0);
    bytes_.assign(stages_.size(), 0);
    steps_ = 0;
    timing_ = true;
  }

  std::vector<StageTime> stop_timing() {
    std::lock_guard lock(mutex_);
    timing_ = false;
    std::vector<StageTime> rows;
    for (size_t i = 0; i < stages_.size() && i < seconds_.size(); ++i) {
      const std::string name = name_of(program->stages[i]);
      auto row = std::find_if(
          rows.begin(), rows.end(), [&](auto& r) { return r.name == name; });
      if (row == rows.end()) {
        row = rows.insert(rows.end(), StageTime{name});
      }
      ++row->count;
      row->seconds += seconds_[i];
      row->bytes += stages_[i]->cache_nbytes(work_.step) +
          bytes_[i] / static_cast<uint64_t>(std::max<int64_t>(1, steps_));
      row->steps = steps_;
    }
    return rows;
  }

  int64_t steps_begun_ahead() {
    std::lock_guard lock(mutex_);
    return begun_ahead_;
  }

  const std::shared_ptr<const Program> program;

 private:
  /// Calls done(stage, lane) after the barrier of each stage from `first` on.
  template <class Done>
  void run_stages(size_t first, const Done& done) {
    const bool goes_on = !timing_ && work_.step.batch == 1;
    const auto job = [&](int thread) {
      Lane lane{work_, *team_, thread};
      for (size_t i = first; i < stages_.size(); ++i) {
        lane.next_stage = next_[i];
        stages_[i]->run(lane);
        if (goes_on && thread == 0 && i + 1 == stages_.size()) {
          lookahead_->keep(*team_);
        }
        lane.barrier();
        done(i, lane);
      }
    };
    team_->run(job, goes_on ? &*lookahead_ : nullptr);
  }

  /// Returns the first stage that is left to do.
  size_t start(const Step& step, int threads) {
    work_.step = step;
    work_.likeliest.assign(static_cast<size_t>(threads), {});
    const int64_t chunks = cpu::attention_chunks(step.position + 1);
    const bool grows = step.batch > batch_ || chunks > chunks_;
    if (grows) {
      batch_ = std::max(batch_, step.batch);
      chunks_ = std::max(chunks_, chunks);
      work_.x.reserve(batch_);
      work_.hidden_prepared.reserve(batch_ * work_.most_top_k);
      for (const auto& stage : stages_) {
        stage->reserve(work_, batch_);
      }
    }
    for (auto& rotation : work_.rotations) {
      rotate_to(step, rotation);
    }
    if (grows || timing_) { // new memory, or stages to be timed whole
      lookahead_->drop();
    }
    const size_t first = lookahead_->take(step, threads);
    if (first == 0) {
      work_.start_phases(threads);
    } else {
      ++begun_ahead_;
    }
    return first;
  }

  void call_back() {
    if (team_) {
      team_->call_back();
    }
  }

  std::mutex mutex_;
  std::shared_ptr<ThreadTeam> team_; // of the last step
  Workspace work_;
  std::vector<CpuStagePtr> stages_;
  std::vector<const CpuStage*> next_; // that has weights, of each stage
  std::optional<Lookahead> lookahead_;
  int64_t begun_ahead_ = 0;
  int batch_ = 0; // the largest so far
  int64_t chunks_ = 0; // likewise, of attention
  bool timing_ = false;
  int64_t steps_ = 0;
  std::vector<double> seconds_; // a stage
  std::vector<uint64_t> bytes_; // likewise, of weights
};

CpuExecutor::CpuExecutor(std::shared_ptr<const Program> program)
    : impl_(std::make_unique<Impl>(std::move(program))) {}
CpuExecutor::~CpuExecutor() = default;

void CpuExecutor::run(const Step& step) {
  impl_->run(step);
}

const Program& CpuExecutor::program() const {
  return *impl_->program;
}

int64_t CpuExecutor::steps_begun_ahead() const {
  return impl_->steps_begun_ahead();
}

void CpuExecutor::start_timing() {
  impl_->start_timing();
}

std::vector<StageTime> CpuExecutor::stop_timing() {
  return impl_->stop_timing();
}

} // namespace zmlx::decode
