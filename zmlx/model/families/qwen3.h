// SPDX-License-Identifier: MIT
// Qwen3 and Qwen3-MoE: attention with normalised queries and keys, then a gated
// feed-forward layer or experts.
#pragma once

#include <memory>

#include "zmlx/model/families/weights.h"
#include "zmlx/model/model.h"

namespace zmlx {

/// Builds the network from config.json and a checkpoint in MLX or Hugging Face
/// layout; fills what info can know. Throws FileError for scaled rotary
/// positions, which it does not know.
std::unique_ptr<Network>
build_qwen3(const Config& config, Weights& weights, ModelInfo& info);
std::unique_ptr<Network>
build_qwen3_moe(const Config& config, Weights& weights, ModelInfo& info);

} // namespace zmlx
