// SPDX-License-Identifier: MIT
// One entry an activation: its text, its reference in MLX operations, what it
// is. Functions, specs and tests all come from the table.
#include "zmlx/kernels/activations/activations.h"

#include <cmath>
#include <map>
#include <string_view>

#include <fmt/format.h>

#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/registry.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/kept_operations.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::activations {
namespace {

struct Activation {
  const char* name;
  const char* text;
  mx::array (*reference)(const mx::array& x);
  const char* summary;
  /// The reference's own error, in the places where values are small, asks for
  /// a look at the whole.
  bool to_largest = false;
};

using reference::number;

mx::array relu_reference(const mx::array& x) {
  return mx::maximum(x, number(0, x));
}

mx::array gelu_reference(const mx::array& x) {
  return x * (number(1, x) + mx::erf(x * number(M_SQRT1_2, x))) *
      number(0.5, x);
}

mx::array square_of_relu(const mx::array& x) {
  return mx::square(relu_reference(x));
}

mx::array plain_log(const mx::array& x) {
  return mx::log(x);
}

mx::array plain_tanh(const mx::array& x) {
  return mx::tanh(x);
}

mx::array mish_reference(const mx::array& x) {
  return x * mx::tanh(reference::softplus(x));
}

// NaN goes through relu: it is not <= 0.
const Activation kActivations[] = {
    {"exp", "exp(x)", reference::exp, "exp(x)"},
    {"log", "log(x)", plain_log, "Natural logarithm"},
    {"tanh", "tanh(x)", plain_tanh, "tanh(x)"},
    {"sigmoid", "sigmoid(x)", reference::sigmoid, "1 / (1 + exp(-x))"},
    {"relu", "x <= 0.0f ? 0.0f : x", relu_reference, "max(x, 0)"},
    {"relu2", "x <= 0.0f ? 0.0f : x * x", square_of_relu, "max(x, 0)^2"},
    {"silu", "silu(x)", reference::silu, "x sigmoid(x)"},
    {"gelu", "gelu(x)", gelu_reference, "x Phi(x), exact", true},
    {"gelu_tanh",
     "gelu_tanh(x)",
     reference::gelu_tanh,
     "x Phi(x) by its tanh approximation"},
    {"softplus",
     "softplus(x)",
     reference::softplus,
     "log(1 + exp(x)) without overflow"},
    {"mish", "x * tanh(softplus(x))", mish_reference, "x tanh(softplus(x))"},
};

// Parsed once, on first use.
const std::map<std::string_view, Elementwise>& operations() {
  static const auto operations = [] {
    std::map<std::string_view, Elementwise> made;
    for (const auto& each : kActivations) {
      made.emplace(each.name, unary(each.name, each.text));
    }
    return made;
  }();
  return operations;
}

mx::array apply(const char* name, const mx::array& x) {
  return operations().at(name)(x);
}

mx::array elu_reference(const mx::array& x, double alpha) {
  return mx::where(x > number(0, x), x, number(alpha, x) * mx::expm1(x));
}

} // namespace

mx::array exp(const mx::array& x) {
  return apply("exp", x);
}
mx::array log(const mx::array& x) {
  return apply("log", x);
}
mx::array tanh(const mx::array& x) {
  return apply("tanh", x);
}
mx::array sigmoid(const mx::array& x) {
  return apply("sigmoid", x);
}
mx::array relu(const mx::array& x) {
  return apply("relu", x);
}
mx::array relu2(const mx::array& x) {
  return apply("relu2", x);
}
mx::array silu(const mx::array& x) {
  return apply("silu", x);
}
mx::array gelu(const mx::array& x) {
  return apply("gelu", x);
}
mx::array gelu_tanh(const mx::array& x) {
  return apply("gelu_tanh", x);
}
mx::array softplus(const mx::array& x) {
  return apply("softplus", x);
}
mx::array mish(const mx::array& x) {
  return apply("mish", x);
}

mx::array elu(const mx::array& x, float alpha) {
  if (!std::isfinite(alpha)) {
    invalid("elu", "alpha must be finite, got ", alpha, '.');
  }
  // A constant and no input, which would change the type of narrow results.
  static KeptOperations<float, Elementwise> made;
  return made.get(alpha, [&] {
    return unary(
        "elu", fmt::format("x > 0.0f ? x : {:.9e}f * expm1(x)", alpha));
  })(x);
}

} // namespace zmlx::activations

namespace zmlx::kernels {
namespace {

KernelSpec spec_of(
    const std::string& name,
    const std::string& summary,
    const std::string& arguments,
    const Params& params) {
  return {
      .family = "activations",
      .name = name,
      .summary = summary,
      .call = "zmlx::activations::" + name + '(' + arguments + ')',
      .inputs = {{"x", "any shape, float"}},
      .outputs = {{"out", "x's shape and type; float32 inside"}},
      .gradient = {0},
      .cases = cases_of({{{0}}, {{}}, {{1}}, {{3, 5, 7}}, {{1025}}}, params),
      .bench =
          {{mx::float32, {{4096}}, params},
           {mx::float32, {{4096, 4096}}, params},
           {mx::bfloat16, {{4096, 4096}}, params}},
  };
}

} // namespace

void register_activations(Registry& registry) {
  for (const auto& each : activations::kActivations) {
    KernelSpec spec = spec_of(each.name, each.summary, "x", {});
    spec.run = [name = each.name](const Arrays& in, const Params&) {
      return Arrays{activations::apply(name, in[0])};
    };
    spec.reference = [reference = each.reference](
                         const Arrays& in, const Params&) {
      return Arrays{reference(in[0])};
    };
    if (each.to_largest) {
      spec.terms = [](const KernelCase&) { return int64_t{2}; };
    }
    registry.add(std::move(spec));
  }
  KernelSpec elu = spec_of(
      "elu",
      "x where x > 0, else alpha (exp(x) - 1)",
      "x, alpha",
      {{"alpha", 0.7}});
  elu.params = {{"alpha", "the limit for large negative x, negated", 1.0}};
  elu.run = [](const Arrays& in, const Params& params) {
    return Arrays{
        activations::elu(in[0], static_cast<float>(params.at("alpha")))};
  };
  elu.reference = [](const Arrays& in, const Params& params) {
    return Arrays{activations::elu_reference(
        in[0], static_cast<float>(params.at("alpha")))};
  };
  registry.add(std::move(elu));
}

} // namespace zmlx::kernels
