// SPDX-License-Identifier: MIT
// Checks a kernel of one's own against a reference.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "zmlx/authoring/arrays.h"

namespace zmlx::testing {

/// What assert_matches() throws: where, and by how much, a function is off.
struct Mismatch : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// |got - want| <= atol + rtol * |want|.
struct Closeness {
  /// None: 1e-5, or four epsilons of a narrower type.
  std::optional<double> atol = {}, rtol = {};
};

struct MatchOptions {
  std::vector<mx::Dtype> dtypes = {mx::float32};
  int inputs = 1; // arrays of the shape that both functions take
  Closeness values = {};
  /// Compare vector-Jacobian products in every input too.
  bool gradients = true;
  /// None: 1e-4, or sixteen epsilons of a narrower type.
  Closeness gradient_values = {};
  uint64_t seed = 42;
};

/// Runs both functions on normal values of every shape and type, and compares
/// the number of outputs, their shapes, types and values, and the gradients
/// under a random cotangent. NaN equals NaN. Throws Mismatch with the first
/// difference, and std::invalid_argument without shapes, dtypes or inputs.
void assert_matches(
    const ArrayFunction& function,
    const ArrayFunction& reference,
    const std::vector<mx::Shape>& shapes,
    const MatchOptions& options = {});

/// The same on inputs of one's own; options.dtypes, inputs are not used.
void assert_matches_on(
    const Arrays& inputs,
    const ArrayFunction& function,
    const ArrayFunction& reference,
    const MatchOptions& options = {});

/// "" or the first difference between outputs.
std::string
mismatch(const Arrays& got, const Arrays& want, const Closeness& closeness);

} // namespace zmlx::testing
