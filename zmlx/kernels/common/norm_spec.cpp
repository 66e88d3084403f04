// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/norm_spec.h"

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/kernels/common/dropout_mask.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::norm {
namespace {

using Optional = std::optional<mx::array>;

mx::array normalised(
    const Entry& entry,
    const mx::array& h,
    const Optional& weight,
    const Optional& bias,
    double eps) {
  if (h.dtype() != mx::float64) {
    const auto narrow = static_cast<float>(eps);
    return entry.centred ? mx::fast::layer_norm(h, weight, bias, narrow)
                         : mx::fast::rms_norm(h, weight, narrow);
  }
  const mx::array y = entry.centred ? h - mx::mean(h, -1, true) : h;
  mx::array result = y *
      mx::rsqrt(mx::mean(mx::square(y), -1, true) + reference::number(eps, y));
  result = weight ? result * *weight : result;
  return bias ? result + *bias : result;
}

std::vector<KernelCase> cases(const Entry& entry) {
  Params params = {{"eps", 1e-5}};
  if (entry.dropout) {
    params["p"] = 0.25;
    params["seed"] = 7;
  }
  const auto shapes = [&](const mx::Shape& x) {
    std::vector<mx::Shape> all(entry.residual ? 2 : 1, x);
    all.resize(entry.inputs.size(), mx::Shape{x.back()});
    return all;
  };
  auto all = cases_of(
      {shapes({0, 64}), shapes({5, 193}), shapes({2, 3, 256})}, params);
  // Of one value, or of equal ones, a small eps leaves no digits in the
  // gradient; with a mean nothing is left of one value either.
  params["eps"] = 1;
  for (int dim : {1, 3}) {
    if (dim > 1 || !entry.centred) {
      all.push_back({mx::float32, shapes({dim}), params});
    }
  }
  return all;
}

} // namespace

Arrays
reference(const Entry& entry, const Arrays& inputs, const Params& params) {
  size_t at = 1;
  const auto next = [&](bool there) {
    return there ? Optional(inputs[at++]) : std::nullopt;
  };
  const Optional residual = next(entry.residual);
  const Optional weight = next(entry.weight), bias = next(entry.bias);
  const mx::array& x = inputs[0];
  const mx::array h = residual ? x + *residual : x;
  mx::array y = normalised(entry, h, weight, bias, params.at("eps"));
  if (entry.dropout) {
    y = y *
        dropout_mask::reference(
            x.shape(),
            params.at("p"),
            static_cast<uint64_t>(params.at("seed")),
            y.dtype());
  }
  y = mx::astype(y, x.dtype());
  return entry.returns_sum ? Arrays{y, mx::astype(h, x.dtype())} : Arrays{y};
}

KernelSpec spec_of(const Entry& entry, KernelFunction run) {
  KernelSpec spec = {
      .family = entry.family,
      .name = entry.name,
      .summary = entry.summary,
      .call = concat(
          "zmlx::",
          entry.family,
          "::",
          entry.name,
          '(',
          join(entry.inputs, ", "),
          entry.dropout ? ", p, seed" : "",
          ", eps)"),
      .python = entry.python,
      .inputs = {},
      .outputs = {{"out", "x's shape and type; float32 inside"}},
      .run = std::move(run),
      .reference =
          [entry](const Arrays& in, const Params& params) {
            return reference(entry, in, params);
          },
      .cases = cases(entry),
      .bench = {},
      // A total of dim squares, then a total over rows in the gradients.
      .terms =
          [](const KernelCase& one) { return int64_t{one.shapes[0].back()}; },
      .ulps = 16,
  };
  const size_t wide = entry.residual ? 2 : 1;
  for (size_t i = 0; i < entry.inputs.size(); ++i) {
    spec.inputs.push_back(
        {entry.inputs[i],
         i == 0         ? "(..., dim) float"
             : i < wide ? "as " + entry.inputs[0]
                        : "(dim) float"});
    spec.gradient.push_back(static_cast<int>(i));
  }
  if (entry.dropout) {
    spec.params = {
        {"p", "how many become 0, 0 to below 1"},
        {"seed", "which ones, a whole number", 0.0}};
  }
  spec.params.push_back({"eps", "added to the mean of squares", entry.eps});
  if (entry.returns_sum) {
    spec.outputs.push_back({"sum", "x + residual, as out"});
  }
  for (const auto& [dtype, rows, dim] :
       {std::tuple{mx::float32, 1, 2048},
        std::tuple{mx::float32, 4096, 4096},
        std::tuple{mx::bfloat16, 4096, 4096}}) {
    std::vector<mx::Shape> shapes(wide, mx::Shape{rows, dim});
    shapes.resize(entry.inputs.size(), mx::Shape{dim});
    spec.bench.push_back({dtype, shapes, spec.cases[0].params});
  }
  return spec;
}

} // namespace zmlx::norm
