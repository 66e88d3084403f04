// SPDX-License-Identifier: MIT
// Llama, Mistral and Qwen2: attention over rotated queries and keys as they
// are, then a gated feed-forward layer.
#pragma once

#include <memory>

#include "zmlx/model/families/weights.h"
#include "zmlx/model/model.h"

namespace zmlx {

/// Builds the network from config.json and a checkpoint in MLX or Hugging Face
/// layout; fills what info can know. Throws FileError for layers that attend to
/// a sliding window, for rotary positions of pairs, and for scaled ones other
/// than linear and llama3, which it does not know.
std::unique_ptr<Network>
build_llama(const Config& config, Weights& weights, ModelInfo& info);
std::unique_ptr<Network>
build_qwen2(const Config& config, Weights& weights, ModelInfo& info);

} // namespace zmlx
