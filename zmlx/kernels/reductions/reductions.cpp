// SPDX-License-Identifier: MIT
// For each function: what runs, the reference, the spec.
#include "zmlx/kernels/reductions/reductions.h"

#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/reduce.h"
#include "zmlx/authoring/registry.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::reductions {
namespace {

// Means stay float32 until the end, whatever x is.
mx::array mean_of(const mx::array& x) {
  static const RowOperation operation = reduce(
      {.init = "0.0f",
       .update = "acc + v",
       .finalize = "acc / D",
       .name = "mean",
       .keepdims = true});
  return operation(mx::astype(x, mx::float32));
}

mx::array spread(const mx::array& x) {
  static const RowOperation operation = reduce(
      {.init = "0.0f",
       .update = "acc + (v - m) * (v - m)",
       .finalize = "acc / D",
       .name = "var",
       .inputs = {"v", "m"}});
  return operation(x, mean_of(x));
}

} // namespace

mx::array sum(const mx::array& x) {
  static const RowOperation operation =
      reduce({.init = "0.0f", .update = "acc + v", .name = "sum"});
  return operation(x);
}

mx::array mean(const mx::array& x) {
  static const RowOperation operation = reduce(
      {.init = "0.0f",
       .update = "acc + v",
       .finalize = "acc / D",
       .name = "mean"});
  return operation(x);
}

mx::array max(const mx::array& x) {
  // max() of the languages passes over NaN.
  static const RowOperation operation = row_operation(
      {.name = "max",
       .inputs = {"v"},
       .totals =
           {{"m", "-INFINITY", "max(acc, v)"},
            {"n", "0.0f", "acc + (isnan(v) ? v : 0.0f)"}},
       .finish = {"m + n"}});
  return mx::squeeze(operation(x), -1);
}

mx::array var(const mx::array& x) {
  return mx::astype(spread(x), x.dtype());
}

mx::array standard_deviation(const mx::array& x, float eps) {
  static const Elementwise root = binary("std", "sqrt(a + b)");
  return mx::astype(root(spread(x), mx::array(eps)), x.dtype());
}

mx::array argmax(const mx::array& x) {
  constexpr int kMost = 1 << 24; // places that float32 holds
  if (x.ndim() == 0 || x.shape(-1) < 1 || x.shape(-1) > kMost) {
    invalid(
        "argmax", "rows must have 1 to 2^24 elements, got ", x.shape(), '.');
  }
  static const RowOperation largest = reduce(
      {.init = "-INFINITY",
       .update = "max(acc, v)",
       .name = "argmax",
       .keepdims = true});
  static const RowOperation first = reduce(
      {.init = "INFINITY",
       .update = "min(acc, (v == m || isnan(v)) ? i : INFINITY)",
       .name = "argmax",
       .inputs = {"v", "m", "i"}});
  const mx::array row = mx::stop_gradient(mx::astype(x, mx::float32));
  const mx::array places = mx::arange(0, x.shape(-1), mx::float32);
  return mx::astype(
      first(std::vector<mx::array>{row, largest(row), places}), mx::uint32);
}

} // namespace zmlx::reductions

namespace zmlx::kernels {
namespace {

int64_t row_length(const KernelCase& one) {
  return one.shapes[0].back();
}

mx::array var_reference(const mx::array& x) {
  const mx::array centred = x - mx::mean(x, -1, true);
  return mx::mean(centred * centred, -1);
}

KernelSpec spec_of(
    const char* name,
    const char* summary,
    const char* python,
    mx::array (*run)(const mx::array&),
    mx::array (*reference)(const mx::array&)) {
  return {
      .family = "reductions",
      .name = name,
      .summary = summary,
      .call = concat("zmlx::reductions::", name, "(x)"),
      .python = python,
      .inputs = {{"x", "(..., dim) float"}},
      .outputs = {{"out", "x's shape less its last axis, x's type"}},
      .run =
          [run](const Arrays& in, const Params&) { return Arrays{run(in[0])}; },
      .reference = [reference](
                       const Arrays& in,
                       const Params&) { return Arrays{reference(in[0])}; },
      .gradient = {0},
      .cases = cases_of({{{3, 193}}, {{2, 3, 256}}, {{5, 1}}, {{1, 4097}}}),
      .bench =
          {{mx::float32, {{4096, 4096}}},
           {mx::bfloat16, {{4096, 4096}}},
           {mx::float32, {{1, 32000}}}},
      .terms = row_length,
  };
}

mx::array root_of_squares(const mx::array& x) {
  return mx::sqrt(mx::sum(x * x, -1));
}

// The spec of a sum, whose only row may cancel to next to nothing.
KernelSpec cancelling(KernelSpec spec, mx::array (*sizes)(const mx::array&)) {
  spec.term_sizes = [sizes](const Arrays& in, const Params&) {
    return Arrays{sizes(in[0])};
  };
  return spec;
}

KernelSpec std_spec() {
  KernelSpec spec = spec_of(
      "standard_deviation",
      "sqrt(variance + eps) of the last axis",
      "reductions.std_lastdim",
      nullptr,
      nullptr);
  spec.call = "zmlx::reductions::standard_deviation(x, eps)";
  spec.params = {{"eps", "added to the variance", 1e-6}};
  for (auto* cases : {&spec.cases, &spec.bench}) {
    for (auto& one : *cases) {
      one.params = {{"eps", 1e-6}};
    }
  }
  // Of rows of one element the slope is that of sqrt at eps.
  std::erase_if(spec.cases, [](const KernelCase& one) {
    return one.shapes[0].back() == 1;
  });
  spec.run = [](const Arrays& in, const Params& params) {
    const auto eps = static_cast<float>(params.at("eps"));
    return Arrays{reductions::standard_deviation(in[0], eps)};
  };
  spec.reference = [](const Arrays& in, const Params& params) {
    return Arrays{mx::sqrt(
        var_reference(in[0]) + reference::number(params.at("eps"), in[0]))};
  };
  return spec;
}

KernelSpec argmax_spec() {
  KernelSpec spec = spec_of(
      "argmax",
      "Place of the largest element of the last axis",
      "reductions.argmax_lastdim",
      [](const mx::array& x) { return reductions::argmax(x); },
      [](const mx::array& x) {
        return mx::squeeze(mx::astype(reference::best(x, 1), mx::uint32), -1);
      });
  spec.outputs = {{"out", "x's shape less its last axis, uint32"}};
  spec.gradient = {};
  spec.terms = nullptr;
  spec.specials = Specials::kNone;
  return spec;
}

} // namespace

void register_reductions(Registry& registry) {
  registry.add(cancelling(
      spec_of(
          "sum",
          "Sum over the last axis",
          "reductions.sum_lastdim",
          [](const mx::array& x) { return reductions::sum(x); },
          [](const mx::array& x) { return mx::sum(x, -1); }),
      [](const mx::array& x) { return root_of_squares(x); }));
  registry.add(cancelling(
      spec_of(
          "mean",
          "Mean over the last axis",
          "reductions.mean_lastdim",
          [](const mx::array& x) { return reductions::mean(x); },
          [](const mx::array& x) { return mx::mean(x, -1); }),
      [](const mx::array& x) {
        return root_of_squares(x) / reference::number(x.shape(-1), x);
      }));
  registry.add(spec_of(
      "max",
      "Largest element of the last axis",
      "reductions.max_lastdim",
      [](const mx::array& x) { return reductions::max(x); },
      [](const mx::array& x) { return mx::max(x, -1); }));
  registry.add(spec_of(
      "var",
      "Variance of the last axis, in two passes",
      "reductions.var_lastdim",
      [](const mx::array& x) { return reductions::var(x); },
      var_reference));
  registry.add(std_spec());
  registry.add(argmax_spec());
}

} // namespace zmlx::kernels
