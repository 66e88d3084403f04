// SPDX-License-Identifier: MIT
#include "zmlx/authoring/testing.h"

#include <algorithm>

#include "zmlx/authoring/difference.h"
#include "zmlx/base/error.h"

namespace zmlx::testing {
namespace {

Tolerance tolerance_of(
    const Closeness& closeness,
    double usual,
    double epsilons,
    mx::Dtype dtype) {
  const double narrow = dtype == mx::float16 || dtype == mx::bfloat16
      ? epsilons * epsilon_of(dtype)
      : 0;
  const double fallback = std::max(usual, narrow);
  return {
      closeness.atol.value_or(fallback), closeness.rtol.value_or(fallback), 0};
}

std::string first_difference(
    const Arrays& got,
    const Arrays& want,
    const char* what,
    const Closeness& closeness,
    double usual,
    double epsilons) {
  if (got.size() != want.size()) {
    return concat("must give ", want.size(), " outputs, got ", got.size(), '.');
  }
  for (size_t i = 0; i < got.size(); ++i) {
    std::string why = got[i].dtype() == want[i].dtype()
        ? difference(
              got[i],
              want[i],
              tolerance_of(closeness, usual, epsilons, want[i].dtype()))
        : concat(
              "type must be ", want[i].dtype(), ", got ", got[i].dtype(), '.');
    if (!why.empty()) {
      return concat(what, ' ', i, ": ", why);
    }
  }
  return "";
}

Arrays cotangents_of(const Arrays& outputs, uint64_t seed) {
  Arrays cotangents;
  for (const auto& output : outputs) {
    cotangents.push_back(
        normal_values(output.shape(), output.dtype(), ++seed + 1000));
  }
  return cotangents;
}

Arrays gradients_of(
    const ArrayFunction& function,
    const Arrays& inputs,
    const Arrays& cotangents) {
  Arrays gradients = mx::vjp(function, inputs, cotangents).second;
  mx::eval(gradients);
  return gradients;
}

std::string describe(const Arrays& inputs) {
  std::string text;
  for (const auto& input : inputs) {
    text += concat(text.empty() ? "" : ", ", input.dtype(), ' ', input.shape());
  }
  return text;
}

} // namespace

std::string
mismatch(const Arrays& got, const Arrays& want, const Closeness& closeness) {
  return first_difference(got, want, "output", closeness, 1e-5, 4);
}

void assert_matches_on(
    const Arrays& inputs,
    const ArrayFunction& function,
    const ArrayFunction& reference,
    const MatchOptions& options) {
  const Arrays got = function(inputs), want = reference(inputs);
  std::string why = mismatch(got, want, options.values);
  if (why.empty() && options.gradients) {
    const Arrays cotangents = cotangents_of(want, options.seed);
    why = first_difference(
        gradients_of(function, inputs, cotangents),
        gradients_of(reference, inputs, cotangents),
        "gradient in input",
        options.gradient_values,
        1e-4,
        16);
  }
  if (!why.empty()) {
    throw Mismatch(
        concat("[assert_matches] for inputs ", describe(inputs), ": ", why));
  }
}

void assert_matches(
    const ArrayFunction& function,
    const ArrayFunction& reference,
    const std::vector<mx::Shape>& shapes,
    const MatchOptions& options) {
  for (const auto& inputs : normal_inputs(
           "assert_matches",
           shapes,
           options.dtypes,
           options.inputs,
           options.seed)) {
    assert_matches_on(inputs, function, reference, options);
  }
}

} // namespace zmlx::testing
