// SPDX-License-Identifier: MIT
// CpuRowProgram: which way a problem is walked, and by how many threads.
#include <algorithm>
#include <atomic>

#include "zmlx/runtime/column_runner.h"
#include "zmlx/runtime/expression_cpu.h"
#include "zmlx/runtime/lane_split.h"
#include "zmlx/runtime/row_runner.h"

namespace zmlx {

struct CpuRowProgram::Plan {
  explicit Plan(const dialect::RowProgram& program)
      : by_rows(program, true), by_columns(program, false) {
    serial = std::ranges::any_of(program.passes, cpu::has_serial);
    for (const auto& pass : by_rows.passes) {
      steps += pass.num_steps() + 1;
    }
    steps += by_rows.write.num_steps() + 1;
  }

  cpu::RowPlan by_rows, by_columns;
  bool serial = false;
  int64_t steps = 0; // for each value
};

namespace {

using cpu::ColumnRunner;
using cpu::Layout;
using cpu::RowPlan;
using cpu::RowProblem;
using cpu::RowRunner;

// The runs of adjacent rows that a column walk needs to be worth it.
constexpr int64_t kLeastColumns = 16;
// Rows side by side: wide, so that memory is read in long runs.
constexpr int64_t kLanes = 4096;

RowProblem arrange(
    const dialect::RowProgram& program,
    const mx::Shape& shape,
    int axis,
    bool columns,
    const std::vector<mx::array>& inputs,
    const std::vector<mx::array>& outputs) {
  RowProblem problem{};
  problem.length = shape[axis];
  problem.rows = 1;
  mx::Shape row_shape = shape;
  row_shape[axis] = 1;
  for (auto length : row_shape) {
    problem.rows *= length;
  }
  const auto place = [&](Layout layout) {
    columns ? layout.move_first(axis) : layout.move_last(axis);
    return layout;
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (static_cast<int>(i) < program.num_elements) {
      problem.elements.emplace_back(
          inputs[i], place(Layout::broadcast(inputs[i], shape)));
    } else {
      problem.row_values.emplace_back(
          inputs[i], Layout::broadcast(inputs[i], row_shape));
    }
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (i < program.write.outputs.size()) {
      problem.element_outputs.emplace_back(
          outputs[i], place(Layout::contiguous(shape)));
    } else {
      problem.row_outputs.emplace_back(
          outputs[i], Layout::contiguous(row_shape));
    }
  }
  problem.store = cpu::choose_store(inputs, outputs);
  return problem;
}

// A runner for each thread, and chunks for whichever is free.
template <class Runner>
struct SharedRunners {
  template <class... Args>
  explicit SharedRunners(const Args&... args) {
    for (int i = 0; i < team->size(); ++i) {
      runners.emplace_back(args...);
    }
  }

  template <class Run>
  void each(int64_t chunks, const Run& run) {
    std::atomic<int64_t> next{0};
    team->run([&](int thread) {
      for (int64_t chunk; (chunk = next.fetch_add(1)) < chunks;) {
        run(runners[thread], chunk);
      }
    });
  }

  std::shared_ptr<ThreadTeam> team = thread_team();
  std::vector<Runner> runners;
};

// Rows that are few and long: all threads on each in turn.
void share_rows(const RowPlan& plan, const RowProblem& problem) {
  const int64_t chunks = (problem.length + cpu::kChunk - 1) / cpu::kChunk;
  SharedRunners<RowRunner> shared(plan, problem, false);
  std::vector<float> partials;
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (auto& runner : shared.runners) {
      runner.start(row);
    }
    for (size_t p = 0; p < plan.passes.size(); ++p) {
      const auto& reductions = plan.program.passes[p].reductions;
      const auto count = static_cast<int64_t>(reductions.size());
      partials.resize(static_cast<size_t>(chunks * count));
      shared.each(chunks, [&](RowRunner& runner, int64_t chunk) {
        runner.reduce_chunk(
            static_cast<int>(p), chunk, partials.data() + chunk * count);
      });
      for (int64_t k = 0; k < count; ++k) {
        const float total =
            cpu::total(reductions[k], partials.data() + k, chunks, count);
        for (auto& runner : shared.runners) {
          runner.add_total(total);
        }
      }
    }
    shared.each(chunks, [&](RowRunner& runner, int64_t chunk) {
      runner.write_chunk(chunk);
    });
    shared.runners[0].finish();
  }
}

void run_rows(const RowPlan& plan, const RowProblem& problem, int64_t steps) {
  const int team = num_threads();
  if (team > 1 && problem.rows < 4 * team &&
      problem.length >= 4 * cpu::kChunk) {
    return share_rows(plan, problem);
  }
  // Parts of about 64 thousand values, of one group of rows at most.
  const int64_t part = std::clamp<int64_t>(
      (int64_t{1} << 16) / std::max<int64_t>(1, problem.length),
      1,
      cpu::kGroup);
  cpu::for_each_part(
      (problem.rows + part - 1) / part,
      problem.rows * problem.length * steps,
      [&] { return RowRunner(plan, problem, true); },
      [&](RowRunner& runner, int64_t i) {
        const int64_t begin = i * part;
        runner.run_rows(begin, std::min(part, problem.rows - begin));
      });
}

// Few columns, long: all threads on chunks of positions.
void share_columns(
    const RowPlan& plan,
    const RowProblem& problem,
    int64_t lanes) {
  const int64_t chunks =
      (problem.length + cpu::kColumnChunk - 1) / cpu::kColumnChunk;
  SharedRunners<ColumnRunner> shared(plan, problem, lanes);
  std::vector<double> partials;
  for (int64_t begin = 0; begin < problem.rows; begin += lanes) {
    for (auto& runner : shared.runners) {
      runner.start(begin, std::min(lanes, problem.rows - begin));
    }
    for (size_t p = 0; p < plan.passes.size(); ++p) {
      const auto size = lanes *
          static_cast<int64_t>(plan.program.passes[p].reductions.size());
      partials.resize(static_cast<size_t>(chunks * size));
      shared.each(chunks, [&](ColumnRunner& runner, int64_t chunk) {
        runner.reduce_chunk(
            static_cast<int>(p), chunk, partials.data() + chunk * size);
      });
      for (auto& runner : shared.runners) {
        runner.add_totals(static_cast<int>(p), partials.data());
      }
    }
    shared.each(chunks, [&](ColumnRunner& runner, int64_t chunk) {
      runner.write_chunk(chunk);
    });
    shared.runners[0].finish();
  }
}

void run_columns(
    const RowPlan& plan,
    const RowProblem& problem,
    bool serial,
    int64_t steps) {
  const int team = num_threads();
  const int64_t columns = cpu::whole_groups(problem.rows);
  if (team > 1 && !serial && problem.rows < 2 * team * kLanes &&
      problem.length >= 4 * cpu::kColumnChunk) {
    return share_columns(plan, problem, std::min(columns, kLanes));
  }
  const int64_t lanes =
      std::clamp(cpu::whole_groups(problem.rows / team), cpu::kGroup, kLanes);
  cpu::for_each_part(
      (problem.rows + lanes - 1) / lanes,
      problem.rows * problem.length * steps,
      [&] { return ColumnRunner(plan, problem, lanes); },
      [&](ColumnRunner& runner, int64_t i) {
        const int64_t begin = i * lanes;
        runner.run_rows(begin, std::min(lanes, problem.rows - begin));
      });
}

} // namespace

CpuRowProgram::CpuRowProgram(const dialect::RowProgram& program)
    : plan_(std::make_shared<Plan>(program)) {}

void CpuRowProgram::run(
    const mx::Shape& shape,
    int axis,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) const {
  int64_t inner = 1;
  for (size_t i = static_cast<size_t>(axis) + 1; i < shape.size(); ++i) {
    inner *= shape[i];
  }
  const bool columns = plan_->serial || inner >= kLeastColumns;
  const auto& plan = columns ? plan_->by_columns : plan_->by_rows;
  const auto problem =
      arrange(plan.program, shape, axis, columns, inputs, outputs);
  if (problem.rows == 0) {
    return;
  }
  if (columns) {
    run_columns(plan, problem, plan_->serial, plan_->steps);
  } else {
    run_rows(plan, problem, plan_->steps);
  }
}

} // namespace zmlx
