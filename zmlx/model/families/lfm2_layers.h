// SPDX-License-Identifier: MIT
// What LFM2's families share: short convolutions and attention, each followed
// by a feed-forward layer, and a head that shares the embedding's weight.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "zmlx/model/families/residual_network.h"
#include "zmlx/model/families/weights.h"
#include "zmlx/model/layers/mixers.h"
#include "zmlx/model/model.h"

namespace zmlx {

struct Lfm2Shape {
  int vocab, dim, layers, max_positions;
  int taps; // of a convolution
  bool conv_bias;
  float eps;
  Attention::Shape attention;
  std::vector<bool> attends; // a layer; the others convolve
};

/// Throws FileError where config.json is wrong.
Lfm2Shape read_lfm2_shape(const Config& config);

struct MlpPaths {
  std::string gate, up, down;
};
LayerSlot make_lfm2_mlp(
    const Lfm2Shape& model,
    Weights& weights,
    int inner,
    const MlpPaths& paths);

/// Builds the network from weights in MLX or Hugging Face layout; fills what
/// info can know.
std::unique_ptr<Network> make_lfm2(
    const char* kind,
    const Lfm2Shape& model,
    Weights& weights,
    const MakeFeedForward& make_feed_forward,
    ModelInfo& info);

} // namespace zmlx
