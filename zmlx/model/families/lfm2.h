// SPDX-License-Identifier: MIT
// LFM2: short convolutions and attention with gated feed-forward layers.
#pragma once

#include <memory>

#include "zmlx/model/families/weights.h"
#include "zmlx/model/model.h"

namespace zmlx {

/// Builds the network from config.json and a checkpoint in MLX or Hugging Face
/// layout; fills what info can know.
std::unique_ptr<Network>
build_lfm2(const Config& config, Weights& weights, ModelInfo& info);

} // namespace zmlx
