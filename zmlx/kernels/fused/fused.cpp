// SPDX-License-Identifier: MIT
// One entry a function: its text, its reference in MLX operations, what it is.
// Functions, specs and tests all come from the table.
#include "zmlx/kernels/fused/fused.h"

#include <map>
#include <string_view>

#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/registry.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::fused {
namespace {

struct Entry {
  const char* name;
  const char* text; // of a and b
  mx::array (*reference)(const mx::array& a, const mx::array& b);
  const char* summary;
  bool bias; // b is (dim)
  const char* python;
};

const Entry kEntries[] = {
    {"add",
     "a + b",
     [](const mx::array& a, const mx::array& b) { return a + b; },
     "a + b",
     false,
     ""},
    {"mul",
     "a * b",
     [](const mx::array& a, const mx::array& b) { return a * b; },
     "a b",
     false,
     ""},
    {"silu_mul",
     "silu(a) * b",
     [](const mx::array& a, const mx::array& b) {
       return reference::silu(a) * b;
     },
     "silu(a) b",
     false,
     "fused.silu_mul_grad"},
    {"add_bias",
     "a + b",
     [](const mx::array& a, const mx::array& b) { return a + b; },
     "x + bias along the last axis",
     true,
     ""},
    {"bias_gelu_tanh",
     "gelu_tanh(a + b)",
     [](const mx::array& a, const mx::array& b) {
       return reference::gelu_tanh(a + b);
     },
     "gelu_tanh(x + bias)",
     true,
     ""},
    {"bias_silu",
     "silu(a + b)",
     [](const mx::array& a, const mx::array& b) {
       return reference::silu(a + b);
     },
     "silu(x + bias)",
     true,
     ""},
};

// Parsed once, on first use.
mx::array apply(const char* name, const mx::array& a, const mx::array& b) {
  static const auto operations = [] {
    std::map<std::string_view, Elementwise> made;
    for (const auto& each : kEntries) {
      made.emplace(each.name, binary(each.name, each.text));
    }
    return made;
  }();
  return operations.at(name)(a, b);
}

mx::array
apply_bias(const char* name, const mx::array& x, const mx::array& bias) {
  if (x.ndim() == 0 || bias.shape() != mx::Shape{x.shape(-1)}) {
    invalid(
        name,
        "bias must have the shape of x's last axis, got x ",
        x.shape(),
        " and bias ",
        bias.shape(),
        '.');
  }
  return apply(name, x, bias);
}

} // namespace

mx::array add(const mx::array& a, const mx::array& b) {
  return apply("add", a, b);
}
mx::array mul(const mx::array& a, const mx::array& b) {
  return apply("mul", a, b);
}
mx::array silu_mul(const mx::array& a, const mx::array& b) {
  return apply("silu_mul", a, b);
}
mx::array add_bias(const mx::array& x, const mx::array& bias) {
  return apply_bias("add_bias", x, bias);
}
mx::array bias_gelu_tanh(const mx::array& x, const mx::array& bias) {
  return apply_bias("bias_gelu_tanh", x, bias);
}
mx::array bias_silu(const mx::array& x, const mx::array& bias) {
  return apply_bias("bias_silu", x, bias);
}

} // namespace zmlx::fused

namespace zmlx::kernels {
namespace {

KernelSpec spec_of(const fused::Entry& entry) {
  const auto shapes = [&](const mx::Shape& x) {
    return std::vector<mx::Shape>{x, entry.bias ? mx::Shape{x.back()} : x};
  };
  const char* first = entry.bias ? "x" : "a";
  const char* second = entry.bias ? "bias" : "b";
  // Not x and bias of one shape: their gradients would be one array, of which
  // MLX's second derivatives take one cotangent only.
  const mx::Shape least = entry.bias ? mx::Shape{2, 1} : mx::Shape{1};
  KernelSpec spec = {
      .family = "fused",
      .name = entry.name,
      .summary = entry.summary,
      .call =
          concat("zmlx::fused::", entry.name, '(', first, ", ", second, ')'),
      .python = entry.python,
      .inputs =
          {{first, entry.bias ? "(..., dim) float" : "any shape, float"},
           {second, entry.bias ? "(dim) float" : "broadcasts with a, float"}},
      .outputs = {{"out", "the type that both promote to; float32 inside"}},
      .run =
          [&entry](const Arrays& in, const Params&) {
            return Arrays{
                entry.bias ? fused::apply_bias(entry.name, in[0], in[1])
                           : fused::apply(entry.name, in[0], in[1])};
          },
      .reference =
          [&entry](const Arrays& in, const Params&) {
            return Arrays{entry.reference(in[0], in[1])};
          },
      .gradient = {0, 1},
      .cases = cases_of(
          {shapes({0, 4}),
           shapes(least),
           shapes({3, 257}),
           shapes({2, 3, 64})}),
      .bench =
          {{mx::float32, shapes({1, 8192})},
           {mx::float32, shapes({1024, 8192})},
           {mx::bfloat16, shapes({1024, 8192})}},
      // a + b cancels.
      .terms = [](const KernelCase&) { return int64_t{2}; },
      .ulps = 16,
  };
  if (entry.bias) {
    spec.params = {{"c", "the length of bias, which is known already", 0.0}};
  }
  return spec;
}

} // namespace

void register_fused(Registry& registry) {
  for (const auto& entry : fused::kEntries) {
    registry.add(spec_of(entry));
  }
}

} // namespace zmlx::kernels
