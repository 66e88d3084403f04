// SPDX-License-Identifier: MIT
// Expressions and row programs on a GPU: as kernels that MLX compiles.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "mlx/mlx.h"
#include "zmlx/dialect/expression.h"
#include "zmlx/dialect/expression_kernel.h"
#include "zmlx/dialect/row_program.h"

namespace zmlx {

namespace mx = mlx::core;

/// The kernels made for one program: one for each combination of dtypes and
/// layouts, whatever the shapes.
class GpuKernels {
 public:
  /// Computes an expression of inputs of one shape, from within eval_gpu.
  void run(
      const dialect::FlatExpression& expression,
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs,
      const mx::Stream& stream);

  /// Computes a row program along an axis, as CpuRowProgram::run().
  void run(
      const dialect::RowProgram& program,
      int axis,
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs,
      const mx::Stream& stream);

 private:
  struct Launch {
    std::string key; // layouts; dtypes are added
    size_t groups;
    int threads; // of a group
    int wide; // elements side by side, as dialect::Elements has them
    std::function<dialect::KernelBody(const dialect::Elements&)> body;
  };
  void launch(
      const Launch& launch,
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs,
      const mx::Stream& stream);

  std::mutex mutex_;
  std::map<std::string, mx::fast::CustomKernelFunction> known_;
};

} // namespace zmlx
