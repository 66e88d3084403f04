// SPDX-License-Identifier: MIT
// The table of shapes that synth() knows: configuration and tensors of each.
#pragma once

#include <string>
#include <vector>

#include "mlx/mlx.h"

#include "zmlx/base/json.h"
#include "zmlx/model/checkpoint/quantization.h"

namespace zmlx {

/// A weight of a shape. A linear one is quantised and stands for
/// "<name>.weight", ".scales" and maybe ".biases"; shape is its unpacked one,
/// inputs last. A plain one is stored as it is: normal around `mean`.
struct SynthWeight {
  std::string name;
  mlx::core::Shape shape;
  bool linear = true;
  Quantization packing; // of a linear weight
  bool named = false; // has an entry of its own in the quantization block
  float mean = 0;
  mlx::core::Dtype dtype = mlx::core::bfloat16; // of a plain weight
};

/// A model: config.json without its "quantization" block, and its weights.
struct SynthModel {
  Json config;
  std::vector<SynthWeight> weights;
};

/// One row of the table.
struct SynthShape {
  const char* name;
  int layers;
  int least_layers; // with fewer the family's code does not run
  SynthModel (*make)(int layers, const Quantization& packing);
};

const std::vector<SynthShape>& synth_shape_table();

} // namespace zmlx
