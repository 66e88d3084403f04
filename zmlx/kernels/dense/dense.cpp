// SPDX-License-Identifier: MIT
#include "zmlx/kernels/dense/dense.h"

#include "zmlx/authoring/registry.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/composed_transforms.h"
#include "zmlx/kernels/common/product_gradient.h"
#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx {
namespace dense {

mx::array dense_matmul(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias) {
  constexpr const char* kOp = "dense_matmul";
  if (weight.ndim() != 2) {
    invalid(kOp, "weight must have 2 axes, got ", weight.shape(), '.');
  }
  if (x.ndim() == 0 || x.shape(-1) != weight.shape(1)) {
    invalid(
        kOp,
        "the last axis of x must be ",
        weight.shape(1),
        " to match the weight, got ",
        x.shape(),
        '.');
  }
  if (bias && bias->shape() != mx::Shape{weight.shape(0)}) {
    invalid(
        kOp,
        "bias must have shape (",
        weight.shape(0),
        "), got ",
        bias->shape(),
        '.');
  }
  // contiguous() may copy a mapped weight at every call; see row_contiguous().
  const bool in_place = weight.is_available() && weight.flags().row_contiguous;
  std::vector<mx::array> inputs = {
      x, in_place ? weight : mx::contiguous(weight)};
  if (bias) {
    inputs.push_back(*bias);
  }
  for (const auto& input : inputs) {
    if (!quant::is_float(input.dtype())) {
      invalid(
          kOp,
          "arrays must be float32, float16 or bfloat16, got ",
          input.dtype(),
          '.');
    }
  }
  const auto composed = [](const Arrays& in) {
    const auto dtype = in[0].dtype();
    const mx::array y = product_for_gradients(in[0], in[1]);
    return Arrays{in.size() > 2 ? y + mx::astype(in[2], dtype) : y};
  };
  std::vector<int> differentiable = {0, 1};
  if (bias) {
    differentiable.push_back(2);
  }
  return differentiable_op(
      {kOp, dense_product, composed, differentiable}, inputs)[0];
}

} // namespace dense

namespace kernels {
namespace {

Arrays run(const Arrays& in, const Params&) {
  return {dense::dense_matmul(in[0], in[1])};
}

Arrays composed(const Arrays& in, const Params&) {
  return {mx::matmul(in[0], mx::transpose(in[1]))};
}

std::vector<KernelCase> cases() {
  std::vector<KernelCase> cases;
  for (int rows : {0, 1, 3, 17, 65}) {
    for (const auto& one : cases_of({{{1, rows, 700}, {37, 700}}}, {})) {
      cases.push_back(one);
    }
  }
  cases.push_back({mx::float32, {{2, 1}, {1, 1}}, {}});
  cases.push_back({mx::float32, {{20, 33}, {129, 33}}, {}});
  return cases;
}

KernelSpec spec() {
  return {
      .family = "dense",
      .name = "dense_matmul",
      .summary = "x times the transpose of a matrix that is not quantised",
      .call = "zmlx::dense::dense_matmul(x, weight)",
      .inputs = {{"x", "(..., cols) float"}, {"weight", "(rows, cols) float"}},
      .outputs = {{"out", "(..., rows) in x's type; float32 accumulation"}},
      .run = run,
      .reference = composed,
      .gradient = {0, 1},
      .gpu = false,
      .cases = cases(),
      .bench =
          {{mx::float32, {{1, 4096}, {4096, 4096}}, {}},
           {mx::bfloat16, {{1, 4096}, {4096, 4096}}, {}},
           {mx::float32, {{256, 1024}, {1024, 1024}}, {}}},
      .traffic =
          [](const Arrays& in, const Arrays& out) {
            Traffic traffic;
            traffic.bytes = static_cast<double>(
                in[0].nbytes() + in[1].nbytes() + out[0].nbytes());
            traffic.flops = 2.0 * static_cast<double>(in[0].size()) *
                static_cast<double>(out[0].shape(-1));
            return traffic;
          },
      .terms = [](const KernelCase& one) { return one.shapes[1][1]; },
  };
}

} // namespace

void register_dense(Registry& registry) {
  registry.add(spec());
}

} // namespace kernels
} // namespace zmlx
