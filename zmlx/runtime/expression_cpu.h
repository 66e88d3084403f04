// SPDX-License-Identifier: MIT
// Runs expressions and row programs on the CPU without a compiler: blocks of
// lanes through SIMD functions, split over the thread team.
#pragma once

#include <memory>
#include <vector>

#include "mlx/mlx.h"
#include "zmlx/dialect/expression.h"
#include "zmlx/dialect/row_program.h"

namespace zmlx {

namespace mx = mlx::core;

/// A flat expression made ready to run. Immutable; copies share it; run() may
/// be called from several threads.
class CpuExpression {
 public:
  explicit CpuExpression(const dialect::FlatExpression& expression);

  /// Computes every output. inputs: num_inputs evaluated arrays of any dtype
  /// but complex64, strided or not, whose shapes broadcast to the outputs'
  /// one shape. outputs: allocated, row contiguous, of any dtype but complex64;
  /// one may share the buffer of a row-contiguous input of its shape and
  /// dtype. The same bits for any number of threads. Throws nothing.
  void run(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) const;

 private:
  struct Plan;
  std::shared_ptr<const Plan> plan_;
};

/// A row program made ready to run, as CpuExpression.
class CpuRowProgram {
 public:
  explicit CpuRowProgram(const dialect::RowProgram& program);

  /// Runs the program on every row: the values along `axis` (0 <= axis < ndim)
  /// of a problem of that shape. inputs: the element inputs, which broadcast to
  /// shape, then the row inputs, which broadcast to shape with length 1 along
  /// axis. outputs: the outputs of write (shape), then those of finish (one
  /// value a row, in row-major order of the other axes). Arrays as for
  /// CpuExpression::run(); an output of write may share the buffer of an
  /// element input, one of finish that of a row input.
  void run(
      const mx::Shape& shape,
      int axis,
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) const;

 private:
  struct Plan;
  std::shared_ptr<const Plan> plan_;
};

} // namespace zmlx
