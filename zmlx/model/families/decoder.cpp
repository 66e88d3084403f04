// SPDX-License-Identifier: MIT
#include "zmlx/model/families/decoder.h"

#include "zmlx/base/error.h"
#include "zmlx/model/layers/mlp.h"

namespace zmlx {

DecoderShape read_decoder_shape(
    const Config& config,
    const DecoderDefaults& defaults) {
  constexpr int kMostPositions = 1 << 30;
  DecoderShape model;
  model.vocab = config.integer("vocab_size", 1, kMostFeatures);
  model.dim = config.integer("hidden_size", 1, kMostFeatures);
  model.layers = config.integer("num_hidden_layers", 1, 10000);
  model.inner = config.integer("intermediate_size", 1, kMostFeatures);
  model.max_positions = config.integer(
      "max_position_embeddings", 1, kMostPositions, kMostPositions);
  model.eps = config.number("rms_norm_eps", 1e-6f);
  model.tied = config.flag("tie_word_embeddings", defaults.tied);
  model.attention = read_heads(config, model.dim);
  model.attention.rope =
      read_rope(config, model.attention.head_dim, defaults.rope_theta);
  if (config.flag("rope_traditional", false)) {
    bad_file(
        config.path(),
        "'rope_traditional' must be false: pairs are not known.");
  }
  return model;
}

LayerSlot make_decoder_mlp(
    const DecoderShape& model,
    Weights& weights,
    const std::string& path) {
  const int inner = model.inner, dim = model.dim;
  const bool bias = model.mlp_bias;
  auto gate = weights.linear(path + "gate_proj", inner, dim, bias);
  auto up = weights.linear(path + "up_proj", inner, dim, bias);
  auto down = weights.linear(path + "down_proj", dim, inner, bias);
  return std::make_shared<SwigluMlp>(
      std::move(gate), std::move(up), std::move(down));
}

std::unique_ptr<Network> make_decoder(
    const char* kind,
    const char* block_kind,
    const DecoderShape& model,
    Weights& weights,
    const MakeFeedForward& make_feed_forward,
    ModelInfo& info) {
  info.vocab_size = model.vocab;
  info.num_layers = model.layers;
  info.width = model.dim;
  info.max_positions = model.max_positions;
  ResidualParts parts{
      kind,
      block_kind,
      weights.embedding("model.embed_tokens", model.vocab, model.dim),
      {},
      "norm",
      weights.rms_norm("model.norm", model.dim, model.eps),
      nullptr};
  for (int i = 0; i < model.layers; ++i) {
    const std::string path = concat("model.layers.", i, '.');
    parts.blocks.push_back(
        {weights.rms_norm(path + "input_layernorm", model.dim, model.eps),
         make_attention(
             weights,
             path + "self_attn.",
             model.names,
             model.attention,
             model.dim,
             model.eps),
         weights.rms_norm(
             path + "post_attention_layernorm", model.dim, model.eps),
         make_feed_forward(i, path + "mlp."),
         {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}});
  }
  if (model.tied) {
    parts.head = parts.embedding->as_linear();
    // Some checkpoints hold the head all the same.
    if (weights.has("lm_head.weight")) {
      weights.remove("lm_head.weight");
    }
  } else {
    parts.head = weights.linear("lm_head", model.vocab, model.dim, false);
  }
  return make_residual_network(std::move(parts));
}

std::unique_ptr<Network> make_dense_decoder(
    const char* kind,
    const DecoderShape& model,
    Weights& weights,
    ModelInfo& info) {
  return make_decoder(
      kind,
      "TransformerBlock",
      model,
      weights,
      [&](int, const std::string& path) {
        return make_decoder_mlp(model, weights, path);
      },
      info);
}

} // namespace zmlx
