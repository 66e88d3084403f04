// SPDX-License-Identifier: MIT
// Expressions and row programs as bodies of raw Metal kernels.
#pragma once

#include <span>
#include <string>

#include "zmlx/dialect/expression.h"
#include "zmlx/dialect/row_program.h"

namespace zmlx::dialect {

/// How the elements of an input lie.
enum class Layout : char {
  Flat = 'f', // as those of the output
  Single = 's', // one element for all
  Strided = 'g', // by <input>_strides
};

/// A body as MLX's metal_kernel takes it, with inputs x0, x1, ... and outputs
/// y0, y1, ...; shapes are read at run time, so one text serves all of them.
struct KernelBody {
  std::string header, body;
};

/// Elements that a thread of elementwise_kernel() computes.
inline constexpr int kElementsPerThread = 4;

/// One output element for each element of x0, whose shape all inputs have; none
/// has an axis where `scalar` is set. types: the outputs' elements in Metal.
/// Threads along x: at least the elements over kElementsPerThread.
KernelBody elementwise_kernel(
    const FlatExpression& expression,
    std::span<const Layout> inputs,
    std::span<const std::string> types,
    bool scalar);

/// Elements of a row that a thread of rows_kernel() keeps in registers at most;
/// of longer rows it reads each as often as the program does.
inline constexpr int kElementsHeld = 16;

/// A threadgroup for each row along the axis that is `axis_from_end` axes
/// before the end (1: the last). Inputs are read by their strides; outputs lie
/// in row-major order. A threadgroup has whole SIMD-groups, 32 at most.
KernelBody rows_kernel(
    const RowProgram& program,
    std::span<const std::string> types,
    int axis_from_end);

} // namespace zmlx::dialect
