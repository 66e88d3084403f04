// SPDX-License-Identifier: MIT
// A network seen as residual blocks, for what compiles it as a whole.
#pragma once

#include <vector>

#include "zmlx/model/layers/linear.h"
#include "zmlx/model/module.h"

namespace zmlx {

/// h = embedding(token); for each block h += mixer(norm(h)), then
/// h += feed_forward(ffn_norm(h)); logits = head(final_norm(h)). Slots hold
/// what patch() has put there; see Module::stock_module().
struct Backbone {
  struct Block {
    LayerSlot norm;
    MixerSlot mixer;
    LayerSlot ffn_norm, feed_forward;
  };
  const Embedding* embedding = nullptr;
  std::vector<Block> blocks;
  LayerSlot final_norm, head;
};

} // namespace zmlx
