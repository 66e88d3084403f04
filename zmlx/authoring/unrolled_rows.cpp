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

// Pieces of an array along axis 0, `length` long but for the last. MLX adds up
// a whole array for the gradient of each slice; this joins the gradients.
Arrays pieces_of(const mx::array& whole, int length, const mx::Stream& stream) {
  const auto split = [length, stream](const Arrays& in) {
    mx::Shape ends;
    for (int end = length; end < in[0].shape(0); end += length) {
      ends.push_back(end);
    }
    return mx::split(in[0], ends, 0, stream);
  };
  const auto join = [stream](
                        const Arrays&, const Arrays& parts, const Arrays&) {
    return Arrays{mx::concatenate(parts, 0, stream)};
  };
  return mx::custom_vjp(split, join)({whole});
}

// The slices of an array along axis 0. In two steps: the cost of one operation
// grows with the square of its outputs.
Arrays elements_of(const mx::array& whole, const mx::Stream& stream) {
  Arrays elements;
  for (const auto& piece : pieces_of(whole, 64, stream)) {
    const auto some = pieces_of(piece, 1, stream);
    elements.insert(elements.end(), some.begin(), some.end());
  }
  return elements;
}

// Along axis 0.
class Unrolled {
 public:
  Unrolled(const Rows& rows, const Arrays& inputs, const mx::Stream& stream)
      : name_(rows.name()),
        program_(rows.program()),
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
        0,
        inputs,
        std::vector<mx::Dtype>(pass.reductions.size(), mx::float32),
        stream_);
  }

  // A pass element by element.
  Arrays walk(const RowPass& pass) {
    const int length = elements_[0].shape(0);
    auto row_shape = elements_[0].shape();
    row_shape[0] = 1;
    Arrays running;
    for (const auto& [combine, init] : pass.reductions) {
      running.push_back(mx::full(row_shape, init, mx::float32, stream_));
    }
    if (length == 0) {
      return running;
    }
    std::vector<Arrays> parts;
    for (const auto& element : elements_) {
      parts.push_back(elements_of(element, stream_));
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
  // The row in front, so that each step works on memory in a piece.
  Arrays turned;
  for (const auto& input : inputs) {
    turned.push_back(
        mx::contiguous(mx::moveaxis(input, axis, 0, stream), false, stream));
  }
  auto outputs = Unrolled(rows, turned, stream).run(dtypes);
  for (auto& output : outputs) {
    output = mx::moveaxis(output, 0, axis, stream);
  }
  return outputs;
}

} // namespace zmlx
