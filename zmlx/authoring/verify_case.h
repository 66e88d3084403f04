// SPDX-License-Identifier: MIT
// What the parts of the shared driver have in common: one case of a kernel on
// one device.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "zmlx/authoring/difference.h"
#include "zmlx/authoring/verify.h"
#include "zmlx/base/error.h"

namespace zmlx {

struct VerifyCase {
  const KernelSpec& spec;
  const KernelCase& one;
  mx::Device device;
  Arrays inputs; // evaluated

  /// What work() returns, built and evaluated on the device.
  template <class Work>
  Arrays on_device(Work&& work) const {
    mx::StreamContext context{device};
    Arrays outputs = work();
    mx::eval(outputs);
    return outputs;
  }

  Arrays run(const Arrays& given) const {
    return on_device([&] { return spec.run(given, one.params); });
  }

  /// The terms of an output's sum; 1 for none.
  int64_t terms() const {
    return spec.terms ? spec.terms(one) : 1;
  }
};

/// What the oracle reads: the same values in a wide type, on the CPU.
Arrays widened(const Arrays& arrays, mx::Dtype dtype = mx::float64);

/// "" or how outputs of one run differ in their bits from another's.
std::string
bit_difference(const KernelSpec& spec, const Arrays& got, const Arrays& want);

/// "" or how the gradients at inputs differ from those of the reference.
std::string gradients_difference(const VerifyCase& at, const Arrays& inputs);

/// The checks of a differentiable kernel that need no other inputs than the
/// case's: gradients, jvp, second derivatives, vmap, compile.
std::vector<Check> transform_checks(const VerifyCase& at);

/// The check that work, which returns what is wrong or "", makes.
template <class Work>
Check checked(const char* name, Work&& work) {
  try {
    std::string why = work();
    return {name, why.empty(), std::move(why)};
  } catch (const std::exception& error) {
    return {name, false, concat("threw: ", error.what())};
  }
}

} // namespace zmlx
