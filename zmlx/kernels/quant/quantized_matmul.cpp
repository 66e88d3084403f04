// SPDX-License-Identifier: MIT
#include "zmlx/kernels/quant/quantized_matmul.h"

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/apply_matrix.h"
#include "zmlx/kernels/common/composed_transforms.h"
#include "zmlx/kernels/common/product_gradient.h"
#include "zmlx/runtime/cpu_op.h"

namespace zmlx::quant {

mx::array composed_quantized_matmul(
    const mx::array& x,
    const QuantizedArrays& w,
    const std::optional<mx::array>& bias) {
  const auto dtype = x.dtype();
  const mx::array y = product_for_gradients(
      x,
      [w](const mx::array& rows) { return mlx_product(rows, w); },
      [w, dtype] { return w.mlx_floats(dtype); });
  return bias ? y + mx::astype(*bias, dtype) : y;
}

mx::array quantized_matmul(
    const mx::array& x,
    const QuantizedArrays& w,
    const std::optional<mx::array>& bias) {
  constexpr const char* kOp = "quantized_matmul";
  if (const auto why = why_unsupported(w); !why.empty()) {
    invalid(kOp, why, '.');
  }
  const int cols = static_cast<int>(int64_t{w.words.shape(-1)} * 32 / w.bits);
  if (x.ndim() == 0 || x.shape(-1) != cols) {
    invalid(
        kOp,
        "the last axis of x must be ",
        cols,
        " to match the weights, got ",
        x.shape(),
        '.');
  }
  if (!is_float(x.dtype())) {
    invalid(kOp, "x must be a floating-point array, got ", x.dtype(), '.');
  }
  std::vector<mx::array> inputs = {x};
  if (!w.blocks) { // else the rows may not be there, nor are they read
    inputs.insert(inputs.end(), {w.words, w.scales, w.biases});
  }
  const size_t bias_at = inputs.size();
  if (bias) {
    inputs.push_back(*bias);
  }
  const auto arrays_of = [=](const std::vector<mx::array>& in) {
    return w.blocks
        ? w
        : QuantizedArrays{in[1], in[2], in[3], w.bits, w.group_size, w.scheme};
  };
  const auto run = [=](const std::vector<mx::array>& given) {
    mx::Shape out_shape = given[0].shape();
    out_shape.back() = w.words.shape(-2);
    return cpu_op(
        "QuantizedMatmulCpu",
        given,
        {{std::move(out_shape), given[0].dtype()}},
        [=](const auto& in, auto& out) {
          cpu::apply_matrix(
              in[0],
              view(arrays_of(in)),
              in.size() > bias_at ? &in[bias_at] : nullptr,
              out[0]);
        });
  };
  const auto composed = [=](const std::vector<mx::array>& in) {
    std::optional<mx::array> bias;
    if (in.size() > bias_at) {
      bias = in[bias_at];
    }
    return std::vector<mx::array>{
        composed_quantized_matmul(in[0], arrays_of(in), bias)};
  };
  std::vector<int> differentiable = {0};
  if (bias) {
    differentiable.push_back(static_cast<int>(bias_at));
  }
  return differentiable_op({kOp, run, composed, differentiable}, inputs)[0];
}

} // namespace zmlx::quant
