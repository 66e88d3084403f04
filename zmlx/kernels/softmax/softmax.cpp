// SPDX-License-Identifier: MIT
// For each function: what runs, the reference, the spec.
#include "zmlx/kernels/softmax/softmax.h"

#include <cmath>

#include <fmt/format.h>

#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/reduce.h"
#include "zmlx/authoring/registry.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/kept_operations.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::softmax {
namespace {

const MapReducePass kMax = {"-INFINITY", "max(acc1, x)", "max(a, b)"};
const MapReducePass kSumOfExp = {"0.0f", "acc2 + exp(x - s1)", "a + b"};

// With the scale as a constant: as an input it would change the type of narrow
// results.
RowOperation masked(float scale) {
  const std::string x =
      scale == 1.0f ? "x" : fmt::format("(x * {:.9e}f)", scale);
  return map_reduce(
      {.pass1 =
           {"-INFINITY",
            concat("max(acc1, mask != 0 ? ", x, " : -INFINITY)"),
            "max(a, b)"},
       .pass2 =
           {"0.0f",
            concat("acc2 + (mask != 0 ? exp(", x, " - s1) : 0.0f)"),
            "a + b"},
       .write = concat("mask != 0 ? exp(", x, " - s1) / s2 : 0.0f"),
       .name = "masked_softmax",
       .inputs = {"x", "mask"}});
}

} // namespace

mx::array softmax(const mx::array& x) {
  static const RowOperation operation = map_reduce(
      {.pass1 = kMax,
       .pass2 = kSumOfExp,
       .write = "exp(x - s1) / s2",
       .name = "softmax"});
  return operation(x);
}

mx::array log_softmax(const mx::array& x) {
  static const RowOperation operation = map_reduce(
      {.pass1 = kMax,
       .pass2 = kSumOfExp,
       .write = "x - s1 - log(s2)",
       .name = "log_softmax"});
  return operation(x);
}

mx::array softmax_grad(const mx::array& y, const mx::array& g) {
  static const RowOperation operation = map_reduce(
      {.pass1 = {"0.0f", "acc1 + y * g", "a + b"},
       .write = "y * (g - s1)",
       .name = "softmax_grad",
       .inputs = {"y", "g"}});
  return operation(y, g);
}

mx::array logsumexp(const mx::array& x) {
  static const RowOperation largest = reduce(
      {.init = "-INFINITY",
       .update = "max(acc, v)",
       .name = "logsumexp",
       .keepdims = true});
  static const RowOperation log_of_sum = reduce(
      {.init = "0.0f",
       .update = "acc + exp(v - (isinf(m) ? 0.0f : m))",
       .finalize = "log(acc)",
       .name = "logsumexp",
       .inputs = {"v", "m"},
       .keepdims = true});
  static const Elementwise sum =
      map("logsumexp", "s + (isinf(m) ? 0.0f : m)", {"s", "m"});
  // The largest has no part in the derivative: what it adds it takes away. In
  // float32, which then is the type of what follows.
  const mx::array m = mx::astype(mx::stop_gradient(largest(x)), mx::float32);
  return mx::astype(mx::squeeze(sum(log_of_sum(x, m), m), -1), x.dtype());
}

mx::array masked_softmax(const mx::array& x, const mx::array& mask) {
  return scale_mask_softmax(x, mask, 1.0f);
}

mx::array
scale_mask_softmax(const mx::array& x, const mx::array& mask, float scale) {
  if (mask.dtype() != mx::bool_ || !std::isfinite(scale)) {
    invalid(
        "scale_mask_softmax",
        "mask must be bool and scale finite, got ",
        mask.dtype(),
        " and ",
        scale,
        '.');
  }
  if (mx::broadcast_shapes(x.shape(), mask.shape()) != x.shape()) {
    invalid(
        "scale_mask_softmax",
        "mask must broadcast to x's shape ",
        x.shape(),
        ", got ",
        mask.shape(),
        '.');
  }
  static KeptOperations<float, RowOperation> made;
  return made.get(scale, [&] { return masked(scale); })(x, mask);
}

} // namespace zmlx::softmax

namespace zmlx::kernels {
namespace {

// MLX's logsumexp takes no empty arrays, and its exp() keeps float32's
// accuracy.
bool by_parts(const mx::array& x) {
  return x.dtype() == mx::float64 || x.size() == 0;
}

Arrays log_softmax_reference(const Arrays& in, const Params&) {
  const mx::array& x = in[0];
  if (!by_parts(x)) {
    return {x - mx::logsumexp(x, -1, true)};
  }
  const mx::array shifted = x - mx::stop_gradient(mx::max(x, -1, true));
  return {shifted - mx::log(mx::sum(reference::exp(shifted), -1, true))};
}

Arrays logsumexp_reference(const Arrays& in, const Params&) {
  const mx::array& x = in[0];
  if (!by_parts(x)) {
    return {mx::logsumexp(x, -1)};
  }
  const mx::array most = mx::stop_gradient(mx::max(x, -1, true));
  const mx::array m = mx::where(mx::isinf(most), mx::zeros_like(most), most);
  return {
      mx::squeeze(m + mx::log(mx::sum(reference::exp(x - m), -1, true)), -1)};
}

Arrays softmax_grad_reference(const Arrays& in, const Params&) {
  return {in[0] * (in[1] - mx::sum(in[0] * in[1], -1, true))};
}

Arrays masked_reference(const Arrays& in, const Params& params) {
  const auto number = [&](double value) {
    return reference::number(value, in[0]);
  };
  const mx::array x = in[0] * number(params.at("scale"));
  const mx::array filled = mx::where(in[1], x, number(-INFINITY));
  if (x.dtype() != mx::float64) {
    return {mx::where(in[1], mx::softmax(filled, -1), number(0))};
  }
  // Finite everywhere, for the sake of its derivative.
  const mx::array most = mx::stop_gradient(mx::max(filled, -1, true));
  const mx::array e = mx::where(
      in[1], reference::exp(mx::where(in[1], x - most, number(0))), number(0));
  const mx::array sum = mx::sum(e, -1, true);
  const mx::array y = e / mx::where(sum == number(0), number(1), sum);
  return {mx::where(in[1], y, number(0))};
}

// The first row has no place, the last one has all.
Arrays masked_inputs(const KernelCase& one, uint64_t seed) {
  const mx::array x = normal_values(one.shapes[0], one.dtype, seed);
  mx::array mask =
      normal_values(one.shapes[1], mx::float32, seed + 1) > mx::array(0.0f);
  const int rows = mask.ndim() > 1 ? mask.shape(0) : 0;
  if (rows > 1) {
    mx::Shape column(mask.ndim(), 1);
    column[0] = rows;
    const mx::array row = mx::reshape(mx::arange(rows), column);
    mask = mx::logical_or(
        mx::logical_and(mask, row > mx::array(0)), row == mx::array(rows - 1));
  }
  return {x, mask};
}

int64_t row_length(const KernelCase& one) {
  return one.shapes[0].back();
}

KernelSpec spec_of(
    const char* name,
    const char* summary,
    const char* arguments,
    const char* python) {
  return {
      .family = "softmax",
      .name = name,
      .summary = summary,
      .call = concat("zmlx::softmax::", name, '(', arguments, ')'),
      .python = python,
      .inputs = {{"x", "(..., dim) float"}},
      .outputs = {{"out", "x's shape and type; float32 inside"}},
      .gradient = {0},
      .cases = cases_of(
          {{{0, 5}}, {{1}}, {{3, 193}}, {{2, 3, 256}}, {{5, 1}}, {{1, 4097}}}),
      .bench =
          {{mx::float32, {{4096, 4096}}},
           {mx::bfloat16, {{4096, 4096}}},
           {mx::float32, {{1, 32000}}}},
      .terms = row_length,
  };
}

// The same with a second input of the same shape.
std::vector<KernelCase> twice(std::vector<KernelCase> cases) {
  for (auto& one : cases) {
    one.shapes.push_back(one.shapes[0]);
  }
  return cases;
}

KernelSpec softmax_grad_spec() {
  KernelSpec spec = spec_of(
      "softmax_grad",
      "y (g - sum of y g) over the last axis",
      "y, g",
      "softmax.softmax_grad");
  spec.inputs = {{"y", "(..., dim) float"}, {"g", "as y"}};
  spec.outputs = {{"out", "y's shape and type; float32 inside"}};
  spec.gradient = {0, 1};
  spec.cases = twice(spec.cases);
  spec.bench = twice(spec.bench);
  spec.run = [](const Arrays& in, const Params&) {
    return Arrays{softmax::softmax_grad(in[0], in[1])};
  };
  spec.reference = softmax_grad_reference;
  return spec;
}

KernelSpec masked_spec(bool scaled) {
  KernelSpec spec = scaled
      ? spec_of(
            "scale_mask_softmax",
            "Softmax of scale x over the places of a mask",
            "x, mask, scale",
            "attention.scale_mask_softmax")
      : spec_of(
            "masked_softmax",
            "Softmax over the places of a mask, 0 elsewhere",
            "x, mask",
            "attention.masked_softmax");
  spec.inputs.push_back({"mask", "bool, broadcasts to x", false});
  if (scaled) {
    spec.params = {{"scale", "any finite number"}};
  }
  spec.cases = twice(spec.cases);
  spec.bench = twice(spec.bench);
  // A mask that broadcasts.
  spec.cases.push_back({mx::float32, {{2, 3, 64}, {3, 64}}});
  for (auto* cases : {&spec.cases, &spec.bench}) {
    for (auto& one : *cases) {
      one.params = {{"scale", scaled ? 0.125 : 1}};
    }
  }
  spec.make_inputs = masked_inputs;
  spec.run = [scaled](const Arrays& in, const Params& params) {
    return Arrays{
        scaled ? softmax::scale_mask_softmax(
                     in[0], in[1], static_cast<float>(params.at("scale")))
               : softmax::masked_softmax(in[0], in[1])};
  };
  spec.reference = masked_reference;
  return spec;
}

} // namespace

void register_softmax(Registry& registry) {
  KernelSpec plain = spec_of(
      "softmax", "Softmax over the last axis", "x", "softmax.softmax_lastdim");
  plain.run = [](const Arrays& in, const Params&) {
    return Arrays{softmax::softmax(in[0])};
  };
  plain.reference = [](const Arrays& in, const Params&) {
    return Arrays{reference::softmax(in[0])};
  };
  registry.add(std::move(plain));

  KernelSpec log_softmax = spec_of(
      "log_softmax",
      "Logarithm of softmax over the last axis",
      "x",
      "softmax.log_softmax_lastdim");
  log_softmax.run = [](const Arrays& in, const Params&) {
    return Arrays{softmax::log_softmax(in[0])};
  };
  log_softmax.reference = log_softmax_reference;
  registry.add(std::move(log_softmax));

  registry.add(softmax_grad_spec());

  KernelSpec logsumexp = spec_of(
      "logsumexp",
      "log(sum of exp(x)) over the last axis",
      "x",
      "attention.logsumexp_lastdim");
  logsumexp.outputs = {{"out", "x's shape less its last axis, x's type"}};
  logsumexp.run = [](const Arrays& in, const Params&) {
    return Arrays{softmax::logsumexp(in[0])};
  };
  logsumexp.reference = logsumexp_reference;
  registry.add(std::move(logsumexp));

  registry.add(masked_spec(false));
  registry.add(masked_spec(true));
}

} // namespace zmlx::kernels
