// SPDX-License-Identifier: MIT
// How config.json says that a model's layers are quantised.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "zmlx/base/json.h"

namespace zmlx {

/// How one layer is packed. affine: bits 2, 3, 4, 5, 6 or 8 and groups of 32,
/// 64 or 128 inputs with a scale and a bias each. mxfp4 (4 bits, groups of 32),
/// nvfp4 (4, 16) and mxfp8 (8, 32) have uint8 scales and no biases.
struct Quantization {
  int bits = 4;
  int group_size = 64;
  std::string mode = "affine";

  bool operator==(const Quantization&) const = default;
};

/// What a mode means where bits or the group are not given, as in MLX. Throws
/// std::invalid_argument for an unknown mode.
Quantization default_quantization(const std::string& mode);

/// The text of what is wrong with it, or "".
std::string quantization_error(const Quantization& quantization);

/// The "quantization" block of a config.json.
struct QuantizationTable {
  /// What holds for a layer that is not named; none for a model without.
  std::optional<Quantization> standard;
  /// Layers by path; none: not quantised.
  std::map<std::string, std::optional<Quantization>> layers;
};

/// Reads "quantization", or "quantization_config" where it has MLX's own form
/// (bits and group_size, no quant_method). In an entry for one layer, what is
/// missing comes from the mode, and the mode is affine, as in mlx_lm. Throws
/// FileError for another tool's quantisation and for values that MLX lacks.
QuantizationTable read_quantization(
    const Json& config,
    const std::string& origin);

} // namespace zmlx
