// SPDX-License-Identifier: MIT
// The shared driver of kernel tests: what every kernel of the catalog must
// hold, checked on one case and one device.
#pragma once

#include <string>
#include <vector>

#include "zmlx/authoring/kernel_spec.h"

namespace zmlx {

/// One property of a kernel on one case.
struct Check {
  std::string name; // "values", "gradients", ...
  bool passed = false;
  std::string detail; // what is wrong; "" when passed
};

/// Runs, against the reference in float64 on the CPU:
///  values     plain normal inputs: types, shapes, values
///  gradients  of the inputs in spec.gradient, against MLX's differentiation
///  jvp        is the transpose of that (float32)
///  second     derivatives, against MLX's (float32)
///  vmap       of values and gradients along the first and last axis (float32)
///  compile    gives the same bits (float32)
///  strided    every second value, transposed, and reversed views
///  broadcast  inputs of stride zero along the first axis
///  ties       small whole numbers: values, and gradients where there are any
///  specials   NaN, infinities, signed zeros among the values
///  repeats    the same bits a second time
///  threads    the same bits on 1, 2 and 3 threads (CPU only)
/// A check that cannot apply to the case is left out; one that throws fails
/// with the error's text. The number of threads is as before afterwards.
std::vector<Check>
verify(const KernelSpec& spec, const KernelCase& one, const mx::Device& device);

/// The first of those alone, on inputs that are there already: "" or what is
/// wrong with outputs. oracle: the type that the reference is computed in; in
/// float32 it has errors of its own, so four times as much is allowed, and of
/// the largest value.
std::string values_difference(
    const KernelSpec& spec,
    const KernelCase& one,
    const Arrays& inputs,
    const Arrays& outputs,
    mx::Dtype oracle = mx::float64);

/// The devices that are present and that the kernel can run on.
std::vector<mx::Device> devices_of(const KernelSpec& spec);

} // namespace zmlx
