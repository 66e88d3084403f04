// SPDX-License-Identifier: MIT
// What decoders of Llama's layout share: attention and a gated feed-forward
// layer or experts in each block.
#pragma once

#include <memory>
#include <string>

#include "zmlx/model/families/attention_layer.h"
#include "zmlx/model/families/residual_network.h"

namespace zmlx {

struct DecoderShape {
  int vocab, dim, layers, max_positions, inner;
  float eps;
  bool tied;
  Attention::Shape attention;
  AttentionNames names;
  bool mlp_bias = false;
};

/// What holds where config.json does not say.
struct DecoderDefaults {
  float rope_theta = 0; // 0: it must say
  bool tied = false;
};

/// Throws FileError where config.json is wrong.
DecoderShape read_decoder_shape(
    const Config& config,
    const DecoderDefaults& defaults);

/// down(silu(gate) * up), of weights below `path`.
LayerSlot make_decoder_mlp(
    const DecoderShape& model,
    Weights& weights,
    const std::string& path);

/// Builds the network from weights in MLX or Hugging Face layout; fills what
/// info can know. make_feed_forward gets the path of each block's "mlp.".
std::unique_ptr<Network> make_decoder(
    const char* kind,
    const char* block_kind,
    const DecoderShape& model,
    Weights& weights,
    const MakeFeedForward& make_feed_forward,
    ModelInfo& info);

/// The same where each block has make_decoder_mlp().
std::unique_ptr<Network> make_dense_decoder(
    const char* kind,
    const DecoderShape& model,
    Weights& weights,
    ModelInfo& info);

} // namespace zmlx
