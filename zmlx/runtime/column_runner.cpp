// SPDX-License-Identifier: MIT
#include "zmlx/runtime/column_runner.h"

#include <algorithm>

#include "zmlx/runtime/lane_kernels.h"

namespace zmlx::cpu {

using dialect::Combine;
using dialect::Op;
using dialect::Type;

namespace {

// Values combined in single precision before they are added to the rest.
constexpr int64_t kSteps = 64;

StepFunction step_of(Combine combine) {
  const Op op = combine == Combine::Product ? Op::Mul
      : combine == Combine::Min             ? Op::Min
      : combine == Combine::Max             ? Op::Max
                                            : Op::Add;
  return find_step(op, Type::Float);
}

int64_t chunks_of(int64_t length) {
  return (length + kColumnChunk - 1) / kColumnChunk;
}

} // namespace

ColumnRunner::ColumnRunner(
    const RowPlan& plan,
    const RowProblem& problem,
    int64_t lanes)
    : plan_(plan),
      problem_(problem),
      lanes_(lanes),
      finish_(plan.finish, lanes),
      row_values_(problem.row_values.size()) {
  for (const auto& pass : plan.passes) {
    passes_.emplace_back(
        pass, problem.elements, no_arrays(), lanes, Store::Copied);
  }
  if (!problem.element_outputs.empty()) {
    write_.emplace_back(
        plan.write,
        problem.elements,
        problem.element_outputs,
        lanes,
        problem.store);
  }
  for (auto& values : row_values_) {
    values.resize(static_cast<size_t>(lanes));
  }
}

// Row inputs and the totals so far, to the inputs from `first` on.
void ColumnRunner::set_rows(LaneRunner& runner, int first) {
  for (auto* list : {&row_values_, &totals_}) {
    for (auto& values : *list) {
      runner.set_input(first++, {values.data(), kGroup});
    }
  }
}

void ColumnRunner::start(int64_t begin, int64_t count) {
  begin_ = begin;
  count_ = count;
  totals_.clear();
  running_.clear();
  for (size_t i = 0; i < row_values_.size(); ++i) {
    problem_.row_values[i].read(begin, count, row_values_[i].data());
  }
}

// Adds the running values to the partials and begins anew.
void ColumnRunner::accumulate(int pass, double* partials) {
  const auto& reductions = plan_.program.passes[pass].reductions;
  for (size_t k = 0; k < reductions.size(); ++k) {
    const auto combine = reductions[k].combine;
    if (combine == Combine::Serial) {
      continue;
    }
    double* sums = partials + static_cast<int64_t>(k) * lanes_;
    for (int64_t lane = 0; lane < count_; ++lane) {
      sums[lane] = combined(combine, sums[lane], running_[k][lane]);
    }
    std::fill(running_[k].begin(), running_[k].end(), identity(combine));
  }
}

// Resets what a chunk combines; a Serial total goes on from the last chunk.
void ColumnRunner::begin_chunk(int pass, double* partials) {
  const auto& reductions = plan_.program.passes[pass].reductions;
  auto& lanes = passes_[pass].lanes();
  auto input = static_cast<int>(problem_.elements.size());
  set_rows(lanes, input);
  input += static_cast<int>(row_values_.size() + totals_.size());
  const bool first = running_.empty();
  const bool serial = has_serial(plan_.program.passes[pass]);
  running_.resize(reductions.size());
  steps_.clear();
  for (size_t k = 0; k < reductions.size(); ++k) {
    const auto [combine, init] = reductions[k];
    steps_.push_back(step_of(combine));
    if (combine != Combine::Serial) {
      running_[k].assign(static_cast<size_t>(lanes_), identity(combine));
      std::fill_n(
          partials + static_cast<int64_t>(k) * lanes_,
          lanes_,
          double{identity(combine)});
    } else if (first) {
      running_[k].assign(static_cast<size_t>(lanes_), init);
    }
    if (serial) {
      lanes.set_input(
          input + static_cast<int>(k), {running_[k].data(), kGroup});
    }
  }
}

// Combines the values of one position, which the pass has just computed.
void ColumnRunner::combine_position(int pass) {
  const auto& reductions = plan_.program.passes[pass].reductions;
  auto& lanes = passes_[pass].lanes();
  const int64_t groups = whole_groups(count_) / kGroup;
  next_.resize(reductions.size());
  for (size_t k = 0; k < reductions.size(); ++k) {
    const auto values = lanes.output(static_cast<int>(k));
    float* running = running_[k].data();
    if (reductions[k].combine != Combine::Serial) {
      steps_[k](
          {{running, values.data}, {kGroup, values.stride}, running, groups});
      continue;
    }
    next_[k].resize(running_[k].size());
    for (int64_t group = 0; group < groups; ++group) {
      std::copy_n(
          values.data + group * values.stride,
          kGroup,
          next_[k].data() + group * kGroup);
    }
  }
  // Only now: a value may be another's total of before.
  for (size_t k = 0; k < reductions.size(); ++k) {
    if (reductions[k].combine == Combine::Serial) {
      std::copy(next_[k].begin(), next_[k].end(), running_[k].begin());
    }
  }
}

void ColumnRunner::reduce_chunk(int pass, int64_t chunk, double* partials) {
  begin_chunk(pass, partials);
  const int64_t end = std::min(problem_.length, (chunk + 1) * kColumnChunk);
  for (int64_t i = chunk * kColumnChunk; i < end; ++i) {
    passes_[pass].run(i * problem_.rows + begin_, count_);
    combine_position(pass);
    if ((i + 1) % kSteps == 0 || i + 1 == end) {
      accumulate(pass, partials);
    }
  }
}

void ColumnRunner::add_totals(int pass, const double* partials) {
  const auto& reductions = plan_.program.passes[pass].reductions;
  const int64_t chunks = chunks_of(problem_.length);
  const auto size = static_cast<int64_t>(reductions.size()) * lanes_;
  running_.resize(reductions.size());
  for (size_t k = 0; k < reductions.size(); ++k) {
    const auto [combine, init] = reductions[k];
    std::vector<float> totals(static_cast<size_t>(lanes_), init);
    if (combine == Combine::Serial && !running_[k].empty()) {
      totals = running_[k];
    }
    for (int64_t lane = 0; combine != Combine::Serial && lane < count_;
         ++lane) {
      double sum = init;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        sum = combined(
            combine,
            sum,
            partials[chunk * size + static_cast<int64_t>(k) * lanes_ + lane]);
      }
      totals[static_cast<size_t>(lane)] = static_cast<float>(sum);
    }
    totals_.push_back(std::move(totals));
  }
  running_.clear();
}

void ColumnRunner::write_chunk(int64_t chunk) {
  if (write_.empty()) {
    return;
  }
  set_rows(write_[0].lanes(), static_cast<int>(problem_.elements.size()));
  const int64_t end = std::min(problem_.length, (chunk + 1) * kColumnChunk);
  for (int64_t i = chunk * kColumnChunk; i < end; ++i) {
    write_[0].run(i * problem_.rows + begin_, count_);
  }
}

void ColumnRunner::finish() {
  if (problem_.row_outputs.empty()) {
    return;
  }
  set_rows(finish_, 0);
  finish_.run_block(whole_groups(count_) / kGroup);
  std::vector<float> values(static_cast<size_t>(lanes_));
  for (size_t k = 0; k < problem_.row_outputs.size(); ++k) {
    const auto lanes = finish_.output(static_cast<int>(k));
    for (int64_t i = 0; i < count_; i += kGroup) {
      std::copy_n(
          lanes.data + i / kGroup * lanes.stride, kGroup, values.data() + i);
    }
    problem_.row_outputs[k].write(begin_, count_, values.data());
  }
}

void ColumnRunner::run_rows(int64_t begin, int64_t count) {
  start(begin, count);
  const int64_t chunks = chunks_of(problem_.length);
  std::vector<double> partials;
  for (size_t p = 0; p < passes_.size(); ++p) {
    const auto size = lanes_ *
        static_cast<int64_t>(plan_.program.passes[p].reductions.size());
    partials.resize(static_cast<size_t>(chunks * size));
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      reduce_chunk(static_cast<int>(p), chunk, partials.data() + chunk * size);
    }
    add_totals(static_cast<int>(p), partials.data());
  }
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    write_chunk(chunk);
  }
  finish();
}

} // namespace zmlx::cpu
