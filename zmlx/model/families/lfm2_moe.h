// SPDX-License-Identifier: MIT
// LFM2-MoE: short convolutions and attention, dense first layers, then experts.
#pragma once

#include <memory>

#include "zmlx/model/families/weights.h"
#include "zmlx/model/model.h"

namespace zmlx {

/// Builds the network from config.json and a checkpoint in MLX or Hugging Face
/// layout; fills what info can know. The router is today's (sigmoid scores, a
/// bias for the selection only) unless config.json says "scoring_func":
/// "softmax", the form of mlx_lm up to 0.31.3.
std::unique_ptr<Network>
build_lfm2_moe(const Config& config, Weights& weights, ModelInfo& info);

} // namespace zmlx
