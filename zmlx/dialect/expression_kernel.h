// SPDX-License-Identifier: MIT
// Expressions and row programs as bodies of raw Metal kernels.
#pragma once

#include <span>
#include <string>
#include <vector>

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

/// What arrays hold, in Metal, and how it may be read and written.
struct Elements {
  std::vector<std::string> inputs, outputs; // float, half, bfloat16_t, ...
  /// Elements side by side that a thread takes with one access, whose place is
  /// a multiple of their size, up to 16 bytes, in every array of that many or
  /// more; 1: none.
  int wide = 1;
};

/// Elements that a thread of elementwise_kernel() computes.
constexpr int elements_per_thread(int wide) {
  return wide > 1 ? 2 * wide : 4;
}

/// One output element for each element of x0, whose shape all inputs have: one
/// axis, unless one is Strided; none where `scalar` is set. 2^31 - 1 elements
/// at most. Threadgroups along x, whole ones: at least the elements over those
/// of their threads. Wide elements ask for inputs that are flat or single.
KernelBody elementwise_kernel(
    const FlatExpression& expression,
    std::span<const Layout> inputs,
    const Elements& elements,
    bool scalar);

/// Elements of a row that a thread of rows_kernel() keeps in registers at most;
/// of longer rows it reads each as often as the program does.
inline constexpr int kElementsHeld = 32;

/// A threadgroup for each row along the axis that is `axis_from_end` axes
/// before the end (1: the last). Inputs are read by their strides; outputs lie
/// in row-major order. A threadgroup has whole SIMD-groups, 32 at most. Wide
/// elements ask for the last axis, elements side by side along it, and a length
/// and starts of rows that are multiples of them.
KernelBody rows_kernel(
    const RowProgram& program,
    const Elements& elements,
    int axis_from_end);

} // namespace zmlx::dialect
