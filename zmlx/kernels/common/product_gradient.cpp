// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/product_gradient.h"

#include "zmlx/kernels/common/apply_matrix.h"
#include "zmlx/kernels/common/composed_transforms.h"
#include "zmlx/kernels/common/quantized_arrays.h"
#include "zmlx/runtime/cpu_op.h"

namespace zmlx {
namespace {

using Arrays = std::vector<mx::array>;

// x W^T of W (out, in), in x's type; differentiable as MLX's.
mx::array product(const mx::array& x, const mx::array& w) {
  const auto composed = [](const Arrays& in) {
    return Arrays{
        mx::matmul(in[0], mx::transpose(mx::astype(in[1], in[0].dtype())))};
  };
  if (x.size() == 0 || w.size() == 0) {
    return composed({x, w})[0];
  }
  return differentiable_op(
      {"dense_matmul", dense_product, composed, {0, 1}},
      {x, mx::contiguous(w)})[0];
}

mx::array rows_of(const mx::array& x) {
  return x.ndim() == 1 ? mx::expand_dims(x, 0) : mx::flatten(x, 0, -2);
}

} // namespace

Arrays dense_product(const Arrays& inputs) {
  mx::Shape shape = inputs[0].shape();
  shape.back() = inputs[1].shape(0);
  return cpu_op(
      "DenseMatmulCpu",
      inputs,
      {{std::move(shape), inputs[0].dtype()}},
      [](const Arrays& in, Arrays& out) {
        cpu::apply_matrix(
            in[0],
            quant::dense_view(in[1]),
            in.size() > 2 ? &in[2] : nullptr,
            out[0]);
      });
}

mx::array product_for_gradients(const mx::array& x, const mx::array& weight) {
  return mx::custom_vjp(
      [](const Arrays& in) {
        return Arrays{
            mx::matmul(in[0], mx::transpose(mx::astype(in[1], in[0].dtype())))};
      },
      [](const Arrays& in, const Arrays& cotangents, const Arrays&) {
        const mx::array& g = cotangents[0];
        const mx::array slopes = product(
            mx::contiguous(mx::transpose(rows_of(g))),
            mx::transpose(rows_of(in[0])));
        return Arrays{
            product(g, mx::transpose(in[1])),
            mx::astype(slopes, in[1].dtype())};
      })({x, weight})[0];
}

mx::array product_for_gradients(
    const mx::array& x,
    const std::function<mx::array(const mx::array& x)>& composed,
    const std::function<mx::array()>& dense) {
  return mx::custom_vjp(
      [composed](const Arrays& in) { return Arrays{composed(in[0])}; },
      [dense](const Arrays&, const Arrays& cotangents, const Arrays&) {
        return Arrays{product(cotangents[0], mx::transpose(dense()))};
      })({x})[0];
}

} // namespace zmlx
