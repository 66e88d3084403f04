// SPDX-License-Identifier: MIT
#include "zmlx/authoring/unrolled_rows.h"

#include <algorithm>

#include "zmlx/authoring/program.h"
#include "zmlx/base/error.h"
#include "zmlx/dialect/graph.h"

namespace zmlx {
namespace {

using Arrays = std::vector<mx::array>;
using dialect::Combine;
using dialect::FlatExpression;
using dialect::Graph;
using dialect::RowPass;
using dialect::RowProgram;

// The totals of a pass after one more element: its values, combined with the
// running totals, which are the inputs from first_running on.
FlatExpression step_of(const RowPass& pass, int first_running) {
  Graph graph;
  std::vector<Graph::Id> inputs;
  const auto count = static_cast<int>(pass.reductions.size());
  for (int i = 0; i < first_running + count; ++i) {
    inputs.push_back(graph.input(i));
  }
  auto values = graph.append(pass.values, inputs);
  for (int i = 0; i < count; ++i) {
    const auto combine = pass.reductions[i].combine;
    if (combine != Combine::Serial) {
      values[i] = graph.make(
          combine == Combine::Sum           ? dialect::Op::Add
              : combine == Combine::Product ? dialect::Op::Mul
              : combine == Combine::Min     ? dialect::Op::Min
                                            : dialect::Op::Max,
          inputs[first_running + i],
          values[i]);
    }
  }
  return graph.flatten(values, first_running + count);
}

class Unrolled {
 public:
  Unrolled(
      const Rows& rows,
      int axis,
      const Arrays& inputs,
      const mx::Stream& stream)
      : name_(rows.name()),
        program_(rows.program()),
        axis_(axis),
        stream_(stream),
        elements_(inputs.begin(), inputs.begin() + program_.num_elements),
        row_values_(inputs.begin() + program_.num_elements, inputs.end()) {}

  Arrays run(const std::vector<mx::Dtype>& dtypes) {
    for (const auto& pass : program_.passes) {
      const bool serial = std::ranges::any_of(
          pass.reductions,
          [](const auto& made) { return made.combine == Combine::Serial; });
      const auto totals = serial ? walk(pass) : reduce(pass);
      row_values_.insert(row_values_.end(), totals.begin(), totals.end());
    }
    const auto num_written = program_.write.outputs.size();
    Arrays outputs;
    if (num_written > 0) {
      auto inputs = elements_;
      inputs.insert(inputs.end(), row_values_.begin(), row_values_.end());
      outputs =
          run(program_.write,
              inputs,
              {dtypes.begin(), dtypes.begin() + num_written});
    }
    if (!program_.finish.outputs.empty()) {
      const auto finished =
          run(program_.finish,
              row_values_,
              {dtypes.begin() + num_written, dtypes.end()});
      outputs.insert(outputs.end(), finished.begin(), finished.end());
    }
    return outputs;
  }

 private:
  Arrays run(
      const FlatExpression& expression,
      const Arrays& inputs,
      const std::vector<mx::Dtype>& dtypes) {
    return run_program(
        std::make_shared<const Program>(name_, expression),
        inputs,
        dtypes,
        stream_);
  }

  // A pass in any order, as a row program of its own.
  Arrays reduce(const RowPass& pass) {
    RowProgram alone;
    alone.num_elements = program_.num_elements;
    alone.num_row_values = static_cast<int>(row_values_.size());
    alone.passes = {pass};
    Graph graph;
    const auto count = static_cast<int>(pass.reductions.size());
    std::vector<Graph::Id> totals;
    for (int i = 0; i < count; ++i) {
      totals.push_back(graph.input(alone.num_row_values + i));
    }
    alone.finish = graph.flatten(totals, alone.num_row_values + count);
    auto inputs = elements_;
    inputs.insert(inputs.end(), row_values_.begin(), row_values_.end());
    return run_rows(
        std::make_shared<const Rows>(name_, std::move(alone)),
        elements_[0].shape(),
        axis_,
        inputs,
        std::vector<mx::Dtype>(pass.reductions.size(), mx::float32),
        stream_);
  }

  // A pass element by element.
  Arrays walk(const RowPass& pass) {
    const int length = elements_[0].shape(axis_);
    auto row_shape = elements_[0].shape();
    row_shape[axis_] = 1;
    Arrays running;
    for (const auto& [combine, init] : pass.reductions) {
      running.push_back(mx::full(row_shape, init, mx::float32, stream_));
    }
    if (length == 0) {
      return running;
    }
    std::vector<Arrays> parts;
    for (const auto& element : elements_) {
      parts.push_back(mx::split(element, length, axis_, stream_));
    }
    const int first_running =
        program_.num_elements + static_cast<int>(row_values_.size());
    const auto step =
        std::make_shared<const Program>(name_, step_of(pass, first_running));
    const std::vector<mx::Dtype> dtypes(running.size(), mx::float32);
    for (int j = 0; j < length; ++j) {
      Arrays inputs;
      for (const auto& part : parts) {
        inputs.push_back(part[j]);
      }
      inputs.insert(inputs.end(), row_values_.begin(), row_values_.end());
      inputs.insert(inputs.end(), running.begin(), running.end());
      running = run_program(step, inputs, dtypes, stream_);
    }
    return running;
  }

  const std::string& name_;
  const RowProgram& program_;
  int axis_;
  mx::Stream stream_;
  Arrays elements_, row_values_;
};

} // namespace

std::vector<mx::array> run_unrolled(
    const Rows& rows,
    int axis,
    const std::vector<mx::array>& inputs,
    const std::vector<mx::Dtype>& dtypes,
    const mx::Stream& stream) {
  if (inputs[0].shape(axis) > kMaxUnrolled) {
    invalid(
        rows.name(),
        "a gradient of an update that is no sum, product, minimum or maximum "
        "needs rows of at most ",
        kMaxUnrolled,
        " elements, got ",
        inputs[0].shape(axis),
        ".");
  }
  return Unrolled(rows, axis, inputs, stream).run(dtypes);
}

} // namespace zmlx
