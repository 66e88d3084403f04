// SPDX-License-Identifier: MIT
// A decoder of residual blocks, the network of most families.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "zmlx/model/layers/linear.h"
#include "zmlx/model/model.h"

namespace zmlx {

/// h += mixer(norm(h)); h += feed_forward(ffn_norm(h)).
struct ResidualBlock {
  /// What checkpoints call the parts.
  struct Names {
    std::string norm, mixer, ffn_norm, feed_forward;
  };
  LayerSlot norm;
  MixerSlot mixer;
  LayerSlot ffn_norm, feed_forward;
  Names names;
  bool attends = true; // or convolves
};

struct ResidualParts {
  const char* kind; // "Lfm2Model"
  const char* block_kind;
  std::unique_ptr<Embedding> embedding; // "model.embed_tokens"
  std::vector<ResidualBlock> blocks; // "model.layers.0", ...
  std::string final_norm_name; // below "model."
  LayerSlot final_norm, head;
};

/// The feed-forward of a layer, whose weights are below `path`.
using MakeFeedForward =
    std::function<LayerSlot(int layer, const std::string& path)>;

std::unique_ptr<Network> make_residual_network(ResidualParts parts);

} // namespace zmlx
