// SPDX-License-Identifier: MIT
// How the families of synth_shape_table() list their weights.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "zmlx/model/checkpoint/synth_shapes.h"

namespace zmlx {

/// Collects the weights of one model.
struct SynthList {
  const Quantization& packing;
  std::vector<SynthWeight> list;

  SynthWeight& linear(const std::string& name, mlx::core::Shape shape) {
    SynthWeight& weight = list.emplace_back();
    weight.name = name;
    weight.shape = std::move(shape);
    weight.packing = packing;
    return weight;
  }
  /// Router gates keep 8 bits in every checkpoint that mlx_lm makes.
  void gate(const std::string& name, mlx::core::Shape shape) {
    SynthWeight& weight = linear(name, std::move(shape));
    weight.packing = {8, 64, "affine"};
    weight.named = true;
  }
  void experts(const std::string& path, int count, int inner, int dim) {
    linear(path + "gate_proj", {count, inner, dim});
    linear(path + "up_proj", {count, inner, dim});
    linear(path + "down_proj", {count, dim, inner});
  }
  SynthWeight&
  plain(const std::string& name, mlx::core::Shape shape, float mean) {
    SynthWeight& weight = list.emplace_back();
    weight.name = name;
    weight.shape = std::move(shape);
    weight.linear = false;
    weight.mean = mean;
    return weight;
  }
};

SynthModel qwen3_30b_a3b(int layers, const Quantization& packing);
SynthModel qwen3_moe_tiny(int layers, const Quantization& packing);

} // namespace zmlx
