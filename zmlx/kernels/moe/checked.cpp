// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/checked.h"

#include "zmlx/base/error.h"

namespace zmlx::moe {

Projection checked(
    const char* op,
    const char* name,
    const Projection& projection,
    int experts,
    int rows,
    int cols) {
  Projection good = projection;
  const auto* packed = std::get_if<quant::QuantizedArrays>(&good.weight);
  if (packed) {
    if (const auto why = quant::why_unsupported(*packed); !why.empty()) {
      invalid(op, why, '.');
    }
  } else {
    auto& weight = std::get<mx::array>(good.weight);
    if (!quant::is_float(weight.dtype())) {
      invalid(
          op,
          name,
          " must be quantised or float32, float16 or bfloat16, got ",
          weight.dtype(),
          '.');
    }
    if (!weight.is_available() || !weight.flags().row_contiguous) {
      weight = mx::contiguous(weight);
    }
  }
  const mx::array& values =
      packed ? packed->words : std::get<mx::array>(good.weight);
  mx::Shape shape = {rows, cols}, bias_shape = {rows};
  if (experts > 0) {
    shape.insert(shape.begin(), experts);
    bias_shape.insert(bias_shape.begin(), experts);
  }
  mx::Shape got = values.shape();
  if (packed && !got.empty()) {
    got.back() = quant::cols_of(good.weight);
  }
  if (got != shape) {
    invalid(op, name, " must be ", shape, ", got ", got, '.');
  }
  if (good.bias) {
    if (good.bias->shape() != bias_shape ||
        !quant::is_float(good.bias->dtype())) {
      invalid(
          op,
          "the bias of ",
          name,
          " must be ",
          bias_shape,
          " float, got ",
          good.bias->shape(),
          " of ",
          good.bias->dtype(),
          '.');
    }
    good.bias = mx::contiguous(
        experts > 0 ? *good.bias : mx::expand_dims(*good.bias, 0));
  }
  return good;
}

const mx::array& stored(const Projection& projection) {
  const auto* packed = std::get_if<quant::QuantizedArrays>(&projection.weight);
  return packed ? packed->words : std::get<mx::array>(projection.weight);
}

ExpertArrays checked(
    const char* op,
    const mx::array& x,
    const ExpertArrays& weights,
    bool stacked) {
  const size_t axes = stacked ? 3 : 2;
  if (stored(weights.up).ndim() != axes) {
    invalid(
        op,
        "weights must have ",
        axes,
        " axes, got ",
        stored(weights.up).shape(),
        '.');
  }
  if (!weights.gate &&
      weights.activation.kind == Activation::Kind::ClampedSwiglu) {
    invalid(op, "the clamped activation must have a gate, got none.");
  }
  if (!quant::is_float(x.dtype()) || x.ndim() == 0) {
    invalid(
        op,
        "x must be (..., dim) of float32, float16 or bfloat16, got ",
        x.shape(),
        " of ",
        x.dtype(),
        '.');
  }
  const int experts = stacked ? stored(weights.up).shape(0) : 0;
  const int dim = x.shape(-1), hidden = quant::rows_of(weights.up.weight);
  ExpertArrays good = weights;
  if (good.gate) {
    good.gate = checked(op, "gate", *weights.gate, experts, hidden, dim);
  }
  good.up = checked(op, "up", weights.up, experts, hidden, dim);
  good.down = checked(op, "down", weights.down, experts, dim, hidden);
  return good;
}

} // namespace zmlx::moe
