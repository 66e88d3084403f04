// SPDX-License-Identifier: MIT
// Layers' weights as kernels take them.
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "zmlx/kernels/common/quantized_arrays.h"
#include "zmlx/model/layers/linear.h"

namespace zmlx {

/// The arrays of a packed weight as stored, or why the kernels cannot take
/// them.
struct PackedArrays {
  std::optional<quant::QuantizedArrays> arrays;
  std::optional<mx::array> bias; // (rows), as stored
  std::string reason;
};

PackedArrays packed_arrays(const PackedWeight& weight);
PackedArrays packed_arrays(
    const std::variant<DenseWeight, PackedWeight>& weight);
/// Of a QuantizedLinear, fused or not; has its bias too.
PackedArrays packed_arrays(const LayerSlot& layer);

/// The arrays of a weight in either form, or why the kernels cannot take them.
struct StoredArrays {
  std::optional<quant::AnyArrays> arrays;
  std::optional<mx::array> bias; // (rows), as stored
  std::string reason;
};

StoredArrays stored_arrays(
    const std::variant<DenseWeight, PackedWeight>& weight);
/// Of a Linear or QuantizedLinear, fused or not; has its bias too.
StoredArrays stored_arrays(const LayerSlot& layer);

} // namespace zmlx
