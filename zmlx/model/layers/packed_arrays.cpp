// SPDX-License-Identifier: MIT
#include "zmlx/model/layers/packed_arrays.h"

#include "zmlx/base/error.h"

namespace zmlx {

PackedArrays packed_arrays(const PackedWeight& weight) {
  if (!weight.biases) {
    return {{}, {}, "the mode must be affine, got " + weight.mode};
  }
  quant::QuantizedArrays arrays{
      weight.packed,
      weight.scales.stored(),
      weight.biases->stored(),
      weight.bits,
      weight.group_size};
  auto reason = quant::why_unsupported(arrays, weight.mode);
  if (!reason.empty()) {
    return {{}, {}, std::move(reason)};
  }
  if (weight.blocks) {
    arrays.blocks = weight.blocks->get(arrays);
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
