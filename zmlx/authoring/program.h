// SPDX-License-Identifier: MIT
// An expression as an MLX primitive, with every transformation of MLX.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "mlx/mlx.h"
#include "zmlx/authoring/gpu_program.h"
#include "zmlx/dialect/expression.h"
#include "zmlx/runtime/expression_cpu.h"

namespace zmlx {

namespace mx = mlx::core;

/// A flat expression with what is made from it on demand: its derivatives, and
/// the forms that run. Shared by all primitives that evaluate it.
class Program {
 public:
  /// gradients: empty, or for each input an expression of the inputs and, last,
  /// the cotangent, which stands for the derivative of the one output.
  Program(
      std::string name,
      dialect::FlatExpression expression,
      std::vector<dialect::FlatExpression> gradients = {});

  const std::string& name() const {
    return name_;
  }
  const dialect::FlatExpression& expression() const {
    return expression_;
  }
  const CpuExpression& cpu() const;
  GpuKernels& gpu() const {
    return gpu_;
  }

  /// Inputs, then a cotangent for each output, to a gradient for each argnum.
  std::shared_ptr<const Program> vjp(const std::vector<int>& argnums) const;
  /// Inputs, then a tangent for each argnum, to a tangent for each output.
  std::shared_ptr<const Program> jvp(const std::vector<int>& argnums) const;

  /// Whether both compute the same, derivatives included.
  friend bool operator==(const Program& a, const Program& b) {
    return &a == &b ||
        (a.expression_ == b.expression_ && a.gradients_ == b.gradients_);
  }

 private:
  using Derived = std::map<std::vector<int>, std::shared_ptr<const Program>>;

  std::string name_;
  dialect::FlatExpression expression_;
  std::vector<dialect::FlatExpression> gradients_;
  mutable GpuKernels gpu_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<const CpuExpression> cpu_;
  mutable Derived vjps_, jvps_;
};

/// Runs a program on inputs that broadcast together (throws
/// std::invalid_argument else); one output for each of dtypes.
std::vector<mx::array> run_program(
    std::shared_ptr<const Program> program,
    const std::vector<mx::array>& inputs,
    const std::vector<mx::Dtype>& dtypes,
    mx::StreamOrDevice s = {});

/// Throws std::invalid_argument unless there is one input for each name.
void check_count(
    const std::string& op,
    const std::vector<std::string>& names,
    const std::vector<mx::array>& inputs);

/// The dtype of a result: what MLX promotes the floating inputs to, float32
/// when there is none. Throws std::invalid_argument for complex64 and float64.
mx::Dtype result_dtype(
    const std::string& op,
    const std::vector<mx::array>& inputs);

/// The shape that all inputs broadcast to; throws std::invalid_argument.
mx::Shape broadcast_shape(
    const std::string& op,
    const std::vector<mx::array>& inputs);

/// Throws std::invalid_argument unless every input in argnums is floating.
void check_differentiable(
    const std::string& op,
    const std::vector<mx::array>& inputs,
    const std::vector<int>& argnums);

} // namespace zmlx
