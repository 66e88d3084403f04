// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/product.h"

#include "zmlx/runtime/device_name.h"

namespace zmlx::moe {
namespace {

// A matrix's floats are written and read once for all of its rows; below so
// many rows an expert, packed weights are read faster for each row anew.
// Measured on an H200: 0.3 ms for a stack against 1.5 us a row.
constexpr int kPairsAnExpert = 16;
// Of the floats of a stack.
constexpr int64_t kMostBytes = int64_t{4} << 30;

bool through_floats(const mx::array& x, const quant::QuantizedArrays& w) {
  const int64_t bytes = static_cast<int64_t>(w.words.size()) * 32 / w.bits * 2;
  return mx::cu::is_available() && x.dtype() != mx::float32 &&
      bytes <= kMostBytes;
}

mx::array with_floats(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<ChosenMatrices>& chosen) {
  const mx::array w = mx::swapaxes(weight, -1, -2);
  return chosen ? mx::gather_mm(x, w, std::nullopt, chosen->ids, chosen->sorted)
                : mx::matmul(x, w);
}

} // namespace

mx::array product(
    const mx::array& x,
    const quant::AnyArrays& weight,
    const std::optional<ChosenMatrices>& chosen) {
  const auto* w = std::get_if<quant::QuantizedArrays>(&weight);
  if (!w) {
    return with_floats(x, std::get<mx::array>(weight), chosen);
  }
  if (!chosen) {
    return quant::mlx_product(x, *w);
  }
  if (chosen->sorted && through_floats(x, *w)) {
    return with_floats(x, w->mlx_floats(x.dtype()), chosen);
  }
  return mx::gather_qmm(
      x,
      w->words,
      w->mlx_scales(x.dtype()),
      w->mlx_biases(x.dtype()),
      std::nullopt,
      chosen->ids,
      true,
      w->group_size,
      w->bits,
      quant::name_of(w->scheme),
      std::nullopt,
      chosen->sorted);
}

bool worth_sorting(int64_t pairs, int experts) {
  return on_a_gpu() && pairs >= int64_t{kPairsAnExpert} * experts;
}

SortedPairs sort_pairs(const mx::array& x, const mx::array& ids) {
  const auto flat = mx::flatten(ids);
  const auto order = mx::argsort(flat);
  const auto token =
      mx::floor_divide(order, mx::array(ids.shape(1), order.dtype()));
  // Not expand_dims() of the result: the axis it adds has a stride of 1, which
  // MLX's grouped product on CUDA takes for the distance of rows.
  const auto rows = mx::reshape(x, {x.shape(0), 1, x.shape(1)});
  return {mx::take(rows, token, 0), mx::take(flat, order), mx::argsort(order)};
}

} // namespace zmlx::moe
