// SPDX-License-Identifier: MIT
// A model of arrays that are in memory already, as another program holds them.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "zmlx/model/checkpoint/quantization.h"
#include "zmlx/model/model.h"

namespace zmlx {

struct ModelParts {
  std::string config; // the text of a config.json
  /// By their names in a checkpoint in MLX layout.
  std::map<std::string, mx::array> tensors;
  /// The layers that are packed, by path.
  std::map<std::string, Quantization> packing;
  std::string origin = "the model"; // what errors call it
};

/// Builds the network; arrays are shared, not copied. dtype: of activations.
/// Throws std::invalid_argument for an unknown family, and FileError for parts
/// that do not fit it, such as a tensor too many.
std::unique_ptr<Model> assemble(ModelParts parts, mx::Dtype dtype);

} // namespace zmlx
