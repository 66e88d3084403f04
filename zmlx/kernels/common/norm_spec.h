// SPDX-License-Identifier: MIT
// Specs of normalisations, whatever the family that offers them.
#pragma once

#include <string>
#include <vector>

#include "zmlx/authoring/kernel_spec.h"

namespace zmlx::norm {

/// A function over norm_rows.h as the catalog lists it.
struct Entry {
  std::string family = "", name = "", summary = "", python = "";
  /// Names of its inputs: x, residual, weight, bias, those that there are.
  std::vector<std::string> inputs = {};
  bool centred = false, residual = false, weight = false, bias = false;
  bool returns_sum = false, dropout = false;
  /// What it normalises with when Python is not told.
  double eps = 1e-6;
};

/// run takes the inputs and eps (and p, seed with dropout).
KernelSpec spec_of(const Entry& entry, KernelFunction run);

/// The same of MLX operations.
Arrays
reference(const Entry& entry, const Arrays& inputs, const Params& params);

} // namespace zmlx::norm
