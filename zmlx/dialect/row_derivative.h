// SPDX-License-Identifier: MIT
// Derivatives of row programs, as row programs.
#pragma once

#include <span>
#include <string>

#include "zmlx/dialect/row_program.h"

namespace zmlx::dialect {

/// Whether vjp_of() and jvp_of() know the program: no total is Serial.
bool is_differentiable(const RowProgram& program);

/// The vector-Jacobian products for `inputs` (elements, then row values,
/// counted through). Element inputs: those of program, then the cotangents of
/// its write; row inputs: those of program, then the cotangents of its finish.
/// write has the gradients of the elements among `inputs`, finish those of the
/// row values, in order. At ties of minimum and maximum all share alike, as in
/// MLX. Of a product over zeros the first derivative is exact; derivatives of
/// that derivative hold the zeros fixed.
RowProgram vjp_of(const RowProgram& program, std::span<const int> inputs);

/// The Jacobian-vector products, in the form of program, whose element and row
/// inputs are followed by the tangents of those among `inputs`.
RowProgram jvp_of(const RowProgram& program, std::span<const int> inputs);

} // namespace zmlx::dialect
