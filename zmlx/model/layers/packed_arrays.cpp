// SPDX-License-Identifier: MIT
#include "zmlx/model/layers/packed_arrays.h"

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/rows_of_blocks.h"

namespace zmlx {

PackedArrays packed_arrays(const PackedWeight& weight) {
  const auto scheme = quant::scheme_named(weight.mode);
  if (!scheme ||
      (*scheme == cpu::Scheme::Affine) != weight.biases.has_value()) {
    return {{}, {}, "only the affine mode has biases, got " + weight.mode};
  }
  const auto& scales = weight.scales.stored();
  quant::QuantizedArrays arrays{
      weight.packed,
      scales,
      weight.biases ? weight.biases->stored() : scales,
      weight.bits,
      weight.group_size,
      *scheme};
  auto reason = quant::why_unsupported(arrays);
  if (!reason.empty()) {
    return {{}, {}, std::move(reason)};
  }
  if (!weight.blocks) {
    arrays.blocks = quant::blocks_behind(arrays.words);
  } else if (auto blocks = weight.blocks->get()) {
    arrays = weight.blocks->rows();
    arrays.blocks = std::move(blocks);
  }
  return {std::move(arrays), {}, ""};
}

PackedArrays packed_arrays(
    const std::variant<DenseWeight, PackedWeight>& weight) {
  const auto* packed = std::get_if<PackedWeight>(&weight);
  return packed ? packed_arrays(*packed)
                : PackedArrays{{}, {}, "its weights must be quantised"};
}

PackedArrays packed_arrays(const LayerSlot& layer) {
  const auto* linear =
      dynamic_cast<const QuantizedLinear*>(&layer->stock_module());
  if (!linear) {
    return {
        {},
        {},
        concat("its projections must be QuantizedLinear, got ", layer->kind())};
  }
  auto packed = packed_arrays(linear->weight);
  if (linear->bias) {
    packed.bias = linear->bias->stored();
  }
  return packed;
}

StoredArrays stored_arrays(
    const std::variant<DenseWeight, PackedWeight>& weight) {
  if (std::holds_alternative<PackedWeight>(weight)) {
    auto packed = packed_arrays(weight);
    return {std::move(packed.arrays), {}, std::move(packed.reason)};
  }
  const auto& stored = std::get<DenseWeight>(weight).weight.stored();
  if (!quant::is_float(stored.dtype())) {
    return {
        {},
        {},
        concat(
            "its weight must be float32, float16 or bfloat16, got ",
            stored.dtype())};
  }
  return {quant::row_contiguous(stored), {}, ""};
}

StoredArrays stored_arrays(const LayerSlot& layer) {
  const auto* linear = dynamic_cast<const Linear*>(&layer->stock_module());
  if (!linear) {
    auto packed = packed_arrays(layer);
    return {
        std::move(packed.arrays),
        std::move(packed.bias),
        std::move(packed.reason)};
  }
  auto dense = stored_arrays(linear->weight);
  if (linear->bias) {
    dense.bias = linear->bias->stored();
  }
  return dense;
}

} // namespace zmlx
