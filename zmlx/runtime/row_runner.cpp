// SPDX-License-Identifier: MIT
#include "zmlx/runtime/row_runner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "zmlx/dialect/kept_value.h"
#include "zmlx/runtime/lane_kernels.h"

namespace zmlx::cpu {

using dialect::Combine;
using dialect::Reduction;

namespace {

int uniform_from(const dialect::RowProgram& program, bool uniform_rows) {
  return uniform_rows ? program.num_elements : std::numeric_limits<int>::max();
}

int64_t chunks_of(int64_t length) {
  return (length + kChunk - 1) / kChunk;
}

} // namespace

RowPlan::RowPlan(const dialect::RowProgram& row_program, bool uniform_rows)
    : program(row_program),
      write(program.write, uniform_from(program, uniform_rows)),
      finish(program.finish, std::numeric_limits<int>::max()) {
  for (const auto& pass : program.passes) {
    passes.emplace_back(pass.values, uniform_from(program, uniform_rows));
  }
  if (uniform_rows && std::ranges::none_of(program.passes, has_serial)) {
    if (const auto found = dialect::find_kept_value(program)) {
      kept = Kept{
          found->pass,
          LaneProgram(found->values, program.num_elements),
          LaneProgram(found->write, program.num_elements + 1)};
    }
  }
}

bool has_serial(const dialect::RowPass& pass) {
  return std::any_of(
      pass.reductions.begin(), pass.reductions.end(), [](const auto& r) {
        return r.combine == Combine::Serial;
      });
}

float identity(Combine combine) {
  switch (combine) {
    case Combine::Product:
      return 1;
    case Combine::Min:
    case Combine::Max:
      return std::numeric_limits<float>::quiet_NaN();
    default:
      return 0;
  }
}

double combined(Combine combine, double x, double y) {
  switch (combine) {
    case Combine::Product:
      return x * y;
    case Combine::Min:
      return std::fmin(x, y);
    case Combine::Max:
      return std::fmax(x, y);
    default:
      return x + y;
  }
}

float total(
    const Reduction& reduction,
    const float* partials,
    int64_t chunks,
    int64_t stride) {
  double total = reduction.init;
  for (int64_t i = 0; i < chunks; ++i) {
    total = combined(reduction.combine, total, partials[i * stride]);
  }
  return static_cast<float>(total);
}

RowRunner::RowRunner(
    const RowPlan& plan,
    const RowProblem& problem,
    bool whole_rows)
    : plan_(plan),
      problem_(problem),
      finish_(plan.finish, kGroup),
      row_values_(problem.row_values.size()),
      finish_inputs_(kGroup * plan.finish.num_inputs()) {
  const auto elements = static_cast<int>(problem.elements.size());
  const auto outputs = static_cast<int>(problem.element_outputs.size());
  const bool keeps = whole_rows && plan.kept && problem.length <= kMostKept;
  if (keeps) {
    kept_pass_ = plan.kept->pass;
    // Blocks that start anywhere read whole groups.
    kept_.resize(whole_groups(problem.length) + kGroup);
  }
  for (size_t p = 0; p < plan.passes.size(); ++p) {
    const auto& pass =
        static_cast<int>(p) == kept_pass_ ? plan.kept->values : plan.passes[p];
    passes_.emplace_back(
        pass,
        problem.elements,
        no_arrays(),
        cpu::block_lanes(pass, elements),
        Store::Copied);
  }
  if (outputs > 0) {
    const auto& write = keeps ? plan.kept->write : plan.write;
    write_.emplace_back(
        write,
        problem.elements,
        problem.element_outputs,
        cpu::block_lanes(write, elements + outputs),
        problem.store);
  }
  for (int i = 0; i < plan.finish.num_inputs(); ++i) {
    finish_.set_input(i, {finish_inputs_.data() + i * kGroup, kGroup});
  }
}

// Row inputs and the totals so far, to the inputs from `input` on.
void RowRunner::set_uniforms(BlockRunner& runner, int input) {
  for (const auto* values : {&row_values_, &totals_}) {
    for (float value : *values) {
      runner.lanes().set_uniform(input++, value);
    }
  }
  runner.lanes().compute_uniform();
}

void RowRunner::start(int64_t row) {
  row_ = row;
  totals_.clear();
  for (size_t i = 0; i < row_values_.size(); ++i) {
    problem_.row_values[i].read(row, 1, &row_values_[i]);
  }
}

void RowRunner::reduce_chunk(int pass, int64_t chunk, float* partials) {
  const auto& reductions = plan_.program.passes[pass].reductions;
  auto& runner = passes_[pass];
  set_uniforms(runner, static_cast<int>(problem_.elements.size()));
  auto& sums = sums_;
  sums.resize(reductions.size());
  for (size_t k = 0; k < reductions.size(); ++k) {
    sums[k].fill(identity(reductions[k].combine));
  }
  const int64_t end = std::min(problem_.length, (chunk + 1) * kChunk);
  for (int64_t i = chunk * kChunk; i < end; i += runner.block_lanes()) {
    const int64_t count = std::min(runner.block_lanes(), end - i);
    if (pass == kept_pass_) {
      runner.lanes().set_target(
          static_cast<int>(reductions.size()), kept_.data() + i);
    }
    runner.run(row_ * problem_.length + i, count);
    for (size_t k = 0; k < reductions.size(); ++k) {
      const auto combine = reductions[k].combine;
      const auto lanes =
          runner.padded_output(static_cast<int>(k), count, identity(combine));
      accumulate_lanes(
          combine,
          sums[k].data(),
          lanes.data,
          lanes.stride,
          whole_groups(count) / kGroup);
    }
  }
  for (size_t k = 0; k < reductions.size(); ++k) {
    partials[k] = fold_lanes(reductions[k].combine, sums[k].data());
  }
}

void RowRunner::run_passes() {
  const int64_t chunks = chunks_of(problem_.length);
  std::vector<float> partials;
  for (size_t p = 0; p < passes_.size(); ++p) {
    const auto& reductions = plan_.program.passes[p].reductions;
    partials.resize(chunks * reductions.size());
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      reduce_chunk(
          static_cast<int>(p),
          chunk,
          partials.data() + chunk * reductions.size());
    }
    for (size_t k = 0; k < reductions.size(); ++k) {
      add_total(total(
          reductions[k],
          partials.data() + k,
          chunks,
          static_cast<int64_t>(reductions.size())));
    }
  }
}

void RowRunner::write_chunk(int64_t chunk) {
  if (write_.empty()) {
    return;
  }
  const int64_t begin = row_ * problem_.length;
  auto first = static_cast<int>(problem_.elements.size());
  if (kept_pass_ >= 0) {
    write_[0].set_memory(first++, kept_.data(), begin);
  }
  set_uniforms(write_[0], first);
  write_[0].run_all(
      begin + chunk * kChunk,
      begin + std::min(problem_.length, (chunk + 1) * kChunk));
}

void RowRunner::run_rows(int64_t begin, int64_t count) {
  const auto inputs = plan_.finish.num_inputs();
  for (int64_t r = 0; r < count; ++r) {
    start(begin + r);
    run_passes();
    for (int64_t chunk = 0; chunk < chunks_of(problem_.length); ++chunk) {
      write_chunk(chunk);
    }
    for (int i = 0; i < inputs; ++i) {
      const auto rows = static_cast<int>(row_values_.size());
      finish_inputs_[i * kGroup + r] =
          i < rows ? row_values_[i] : totals_[i - rows];
    }
  }
  finish_rows(begin, count);
}

void RowRunner::finish() {
  for (int i = 0; i < plan_.finish.num_inputs(); ++i) {
    const auto rows = static_cast<int>(row_values_.size());
    finish_inputs_[i * kGroup] = i < rows ? row_values_[i] : totals_[i - rows];
  }
  finish_rows(row_, 1);
}

void RowRunner::finish_rows(int64_t begin, int64_t count) {
  if (problem_.row_outputs.empty()) {
    return;
  }
  finish_.run_block(1);
  for (size_t k = 0; k < problem_.row_outputs.size(); ++k) {
    // One group: a stride does not matter.
    problem_.row_outputs[k].write(
        begin, count, finish_.output(static_cast<int>(k)).data);
  }
}

} // namespace zmlx::cpu
