// SPDX-License-Identifier: MIT
// A row program as an MLX primitive, with every transformation of MLX.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "mlx/mlx.h"
#include "zmlx/authoring/gpu_program.h"
#include "zmlx/dialect/row_derivative.h"
#include "zmlx/dialect/row_program.h"
#include "zmlx/runtime/expression_cpu.h"

namespace zmlx {

namespace mx = mlx::core;

/// A row program with what is made from it on demand, as Program.
class Rows {
 public:
  Rows(std::string name, dialect::RowProgram program);

  const std::string& name() const {
    return name_;
  }
  const dialect::RowProgram& program() const {
    return program_;
  }
  int num_inputs() const {
    return program_.num_elements + program_.num_row_values;
  }
  int num_outputs() const {
    return static_cast<int>(
        program_.write.outputs.size() + program_.finish.outputs.size());
  }
  const CpuRowProgram& cpu() const;
  GpuKernels& gpu() const {
    return gpu_;
  }

  /// Whether vjp() and jvp() know the program; else derivatives are those of
  /// run_unrolled().
  bool has_row_derivatives() const {
    return dialect::is_differentiable(program_);
  }
  /// As dialect::vjp_of() and jvp_of().
  std::shared_ptr<const Rows> vjp(const std::vector<int>& inputs) const;
  std::shared_ptr<const Rows> jvp(const std::vector<int>& inputs) const;

  friend bool operator==(const Rows& a, const Rows& b) {
    return &a == &b || a.program_ == b.program_;
  }

 private:
  using Derived = std::map<std::vector<int>, std::shared_ptr<const Rows>>;

  std::string name_;
  dialect::RowProgram program_;
  mutable GpuKernels gpu_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<const CpuRowProgram> cpu_;
  mutable Derived vjps_, jvps_;
};

/// Runs rows along `axis` (0 <= axis < shape.size()). inputs: elements, which
/// broadcast to shape, then row values, which broadcast to shape with length 1
/// along axis. Outputs: those of write (shape), then those of finish (length 1
/// along axis), of the given dtypes.
std::vector<mx::array> run_rows(
    std::shared_ptr<const Rows> rows,
    const mx::Shape& shape,
    int axis,
    const std::vector<mx::array>& inputs,
    const std::vector<mx::Dtype>& dtypes,
    mx::StreamOrDevice s = {});

} // namespace zmlx
