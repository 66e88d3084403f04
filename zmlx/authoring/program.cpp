// SPDX-License-Identifier: MIT
#include "zmlx/authoring/program.h"

#include <algorithm>
#include <utility>

#include "mlx/primitives.h"
#include "zmlx/base/error.h"
#include "zmlx/dialect/derivative.h"
#include "zmlx/dialect/graph.h"
#include "zmlx/runtime/cpu_dispatch.h"

namespace zmlx {
namespace {

using dialect::FlatExpression;
using dialect::Graph;

// The derivatives that the author wrote, with `num_seeds` cotangents or
// tangents behind the inputs; gradient i takes seed(i).
template <class Seed>
std::pair<Graph, std::vector<Graph::Id>> given_gradients(
    const std::vector<FlatExpression>& gradients,
    const std::vector<int>& argnums,
    int num_inputs,
    Seed&& seed) {
  Graph graph;
  std::vector<Graph::Id> inputs, results;
  for (int i = 0; i < num_inputs; ++i) {
    inputs.push_back(graph.input(i));
  }
  for (size_t i = 0; i < argnums.size(); ++i) {
    inputs.push_back(graph.input(num_inputs + seed(i)));
    results.push_back(graph.append(gradients[argnums[i]], inputs)[0]);
    inputs.pop_back();
  }
  return {std::move(graph), std::move(results)};
}

class ProgramPrimitive : public mx::Primitive {
 public:
  ProgramPrimitive(
      mx::Stream stream,
      std::shared_ptr<const Program> program,
      std::vector<mx::Dtype> dtypes)
      : Primitive(stream),
        program_(std::move(program)),
        dtypes_(std::move(dtypes)) {}

  const char* name() const override {
    return program_->name().c_str();
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    for (const auto& input : inputs) {
      if (take_over(input, outputs[0])) {
        break;
      }
    }
    allocate(outputs);
    if (outputs[0].size() > 0) {
      dispatch_cpu(
          stream(),
          inputs,
          outputs,
          [program = program_](
              const std::vector<mx::array>& in, std::vector<mx::array>& out) {
            program->cpu().run(in, out);
          });
    }
  }

  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    if (outputs[0].size() > 0) {
      program_->gpu().run(program_->expression(), inputs, outputs, stream());
      return;
    }
    for (auto& output : outputs) {
      output.set_data(mx::allocator::malloc(0));
    }
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>&) override {
    check_differentiable(program_->name(), primals, argnums);
    auto inputs = primals;
    inputs.insert(inputs.end(), cotangents.begin(), cotangents.end());
    std::vector<mx::Dtype> dtypes;
    for (const int i : argnums) {
      dtypes.push_back(primals[i].dtype());
    }
    return run_program(program_->vjp(argnums), inputs, dtypes, stream());
  }

  std::vector<mx::array> jvp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& tangents,
      const std::vector<int>& argnums) override {
    check_differentiable(program_->name(), primals, argnums);
    auto inputs = primals;
    inputs.insert(inputs.end(), tangents.begin(), tangents.end());
    return run_program(program_->jvp(argnums), inputs, dtypes_, stream());
  }

  std::pair<std::vector<mx::array>, std::vector<int>> vmap(
      const std::vector<mx::array>& inputs,
      const std::vector<int>& axes) override {
    std::vector<mx::array> batched;
    for (size_t i = 0; i < inputs.size(); ++i) {
      batched.push_back(
          axes[i] < 0 ? mx::expand_dims(inputs[i], 0, stream())
                      : mx::moveaxis(inputs[i], axes[i], 0, stream()));
    }
    return {
        run_program(program_, batched, dtypes_, stream()),
        std::vector<int>(dtypes_.size(), 0)};
  }

  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& that = static_cast<const ProgramPrimitive&>(other);
    return dtypes_ == that.dtypes_ && *program_ == *that.program_;
  }

  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override {
    return std::vector<mx::Shape>(dtypes_.size(), inputs[0].shape());
  }

 private:
  std::shared_ptr<const Program> program_;
  std::vector<mx::Dtype> dtypes_;
};

} // namespace

Program::Program(
    std::string name,
    FlatExpression expression,
    std::vector<FlatExpression> gradients)
    : name_(std::move(name)),
      expression_(std::move(expression)),
      gradients_(std::move(gradients)) {}

const CpuExpression& Program::cpu() const {
  const std::lock_guard lock(mutex_);
  if (!cpu_) {
    cpu_ = std::make_unique<const CpuExpression>(expression_);
  }
  return *cpu_;
}

std::shared_ptr<const Program> Program::vjp(
    const std::vector<int>& argnums) const {
  const std::lock_guard lock(mutex_);
  auto& known = vjps_[argnums];
  if (!known) {
    FlatExpression made;
    if (gradients_.empty()) {
      made = dialect::vjp_of(expression_, argnums);
    } else {
      const auto [graph, results] = given_gradients(
          gradients_, argnums, expression_.num_inputs, [](size_t) {
            return 0;
          });
      made = graph.flatten(results, expression_.num_inputs + 1);
    }
    known = std::make_shared<const Program>(name_, std::move(made));
  }
  return known;
}

std::shared_ptr<const Program> Program::jvp(
    const std::vector<int>& argnums) const {
  const std::lock_guard lock(mutex_);
  auto& known = jvps_[argnums];
  if (!known) {
    FlatExpression made;
    if (gradients_.empty()) {
      made = dialect::jvp_of(expression_, argnums);
    } else { // one output: each gradient with the tangent as its cotangent
      auto [graph, results] = given_gradients(
          gradients_, argnums, expression_.num_inputs, [](size_t i) {
            return static_cast<int>(i);
          });
      Graph::Id total = results[0];
      for (size_t i = 1; i < results.size(); ++i) {
        total = graph.add(total, results[i]);
      }
      made = graph.flatten(
          {&total, 1},
          expression_.num_inputs + static_cast<int>(argnums.size()));
    }
    known = std::make_shared<const Program>(name_, std::move(made));
  }
  return known;
}

std::vector<mx::array> run_program(
    std::shared_ptr<const Program> program,
    const std::vector<mx::array>& inputs,
    const std::vector<mx::Dtype>& dtypes,
    mx::StreamOrDevice s) {
  const auto shape = broadcast_shape(program->name(), inputs);
  auto stream = mx::to_stream(s);
  auto whole = mx::broadcast_arrays(inputs, stream);
  auto primitive =
      std::make_shared<ProgramPrimitive>(stream, std::move(program), dtypes);
  return mx::array::make_arrays(
      std::vector<mx::Shape>(dtypes.size(), shape),
      dtypes,
      std::move(primitive),
      std::move(whole));
}

void check_count(
    const std::string& op,
    const std::vector<std::string>& names,
    const std::vector<mx::array>& inputs) {
  if (inputs.size() != names.size()) {
    invalid(
        op,
        "the number of inputs must be ",
        names.size(),
        ", got ",
        inputs.size(),
        ".");
  }
}

mx::Dtype result_dtype(
    const std::string& op,
    const std::vector<mx::array>& inputs) {
  std::optional<mx::Dtype> result;
  for (const auto& input : inputs) {
    const auto dtype = input.dtype();
    if (dtype == mx::complex64 || dtype == mx::float64) {
      invalid(op, "inputs must be real and at most 32 bits, got ", dtype, ".");
    }
    if (mx::issubdtype(dtype, mx::floating)) {
      result = result ? mx::promote_types(*result, dtype) : dtype;
    }
  }
  return result.value_or(mx::float32);
}

mx::Shape broadcast_shape(
    const std::string& op,
    const std::vector<mx::array>& inputs) {
  mx::Shape shape = inputs[0].shape();
  for (const auto& input : inputs) {
    try {
      shape = mx::broadcast_shapes(shape, input.shape());
    } catch (const std::invalid_argument&) {
      invalid(
          op,
          "input shapes must broadcast together, got ",
          shape,
          " and ",
          input.shape(),
          ".");
    }
  }
  return shape;
}

void check_differentiable(
    const std::string& op,
    const std::vector<mx::array>& inputs,
    const std::vector<int>& argnums) {
  for (const int i : argnums) {
    if (!mx::issubdtype(inputs[i].dtype(), mx::floating)) {
      invalid(
          op,
          "a gradient needs a floating input, got ",
          inputs[i].dtype(),
          " for input ",
          i,
          ".");
    }
  }
}

} // namespace zmlx
