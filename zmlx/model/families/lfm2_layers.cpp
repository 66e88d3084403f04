// SPDX-License-Identifier: MIT
#include "zmlx/model/families/lfm2_layers.h"

#include "zmlx/base/error.h"
#include "zmlx/model/families/attention_layer.h"
#include "zmlx/model/layers/mlp.h"

namespace zmlx {
namespace {

MixerSlot make_mixer(const Lfm2Shape& model, Weights& weights, int layer) {
  const std::string path = concat("model.layers.", layer, '.');
  if (!model.attends[layer]) {
    const std::string conv = path + "conv.";
    auto in = weights.linear(
        conv + "in_proj", 3 * model.dim, model.dim, model.conv_bias);
    auto out = weights.linear(
        conv + "out_proj", model.dim, model.dim, model.conv_bias);
    auto taps =
        weights.parameter(conv + "conv.weight", {model.dim, model.taps, 1});
    std::optional<Parameter> bias;
    if (model.conv_bias) {
      bias = weights.parameter(conv + "conv.bias", {model.dim});
    }
    return std::make_shared<ShortConv>(
        std::move(in), std::move(out), std::move(taps), std::move(bias));
  }
  AttentionNames names;
  names.out = "out_proj";
  names.q_norm = "q_layernorm";
  names.k_norm = "k_layernorm";
  return make_attention(
      weights,
      path + "self_attn.",
      names,
      model.attention,
      model.dim,
      model.eps);
}

// config.json says where attention is by name or by index.
std::vector<bool> attention_layers(const Config& config, int layers) {
  std::vector<bool> attends(layers, false);
  if (const Json* indices = config.find("full_attn_idxs")) {
    for (const auto& index : *indices) {
      if (!index.is_number_integer() || index < 0 || index >= layers) {
        bad_file(
            config.path(),
            "'full_attn_idxs' must be layers from 0 to ",
            layers - 1,
            ", got ",
            index.dump(),
            ".");
      }
      attends[index.get<int>()] = true;
    }
    return attends;
  }
  const Json* types = config.find("layer_types");
  if (!types || !types->is_array() ||
      types->size() != static_cast<size_t>(layers)) {
    bad_file(
        config.path(),
        "'layer_types' must name each of the ",
        layers,
        " layers, got ",
        types ? concat(types->size()) : "none",
        ".");
  }
  for (int i = 0; i < layers; ++i) {
    attends[i] = (*types)[i] == "full_attention";
    if (!attends[i] && (*types)[i] != "conv") {
      bad_file(
          config.path(),
          "'layer_types' must be 'conv' or 'full_attention', ",
          "got ",
          (*types)[i].dump(),
          ".");
    }
  }
  return attends;
}

// Hugging Face's layout has (dim, 1, taps) convolutions.
void transpose_convolutions(const Lfm2Shape& model, Weights& weights) {
  for (int i = 0; i < model.layers; ++i) {
    const std::string conv = concat("model.layers.", i, ".conv.conv.weight");
    if (weights.has(conv)) {
      auto tensor = weights.tensor(conv);
      if (tensor.ndim() == 3 && tensor.shape(-1) > tensor.shape(1)) {
        weights.replace(conv, mx::transpose(tensor, {0, 2, 1}));
      }
    }
  }
}

} // namespace

Lfm2Shape read_lfm2_shape(const Config& config) {
  constexpr int kMost = kMostFeatures;
  Lfm2Shape model;
  model.vocab = config.integer("vocab_size", 1, kMost);
  model.dim = config.integer("hidden_size", 1, kMost);
  model.layers = config.integer("num_hidden_layers", 1, 10000);
  model.max_positions = config.integer("max_position_embeddings", 1, 1 << 30);
  model.taps = config.integer("conv_L_cache", 1, 1024);
  model.conv_bias = config.flag("conv_bias", false);
  model.eps = config.number("norm_eps", 1e-5f);
  model.attends = attention_layers(config, model.layers);
  auto& shape = model.attention;
  shape.heads = config.integer("num_attention_heads", 1, model.dim);
  shape.kv_heads =
      config.integer("num_key_value_heads", 1, shape.heads, shape.heads);
  if (model.dim % shape.heads != 0 || shape.heads % shape.kv_heads != 0) {
    bad_file(
        config.path(),
        "hidden_size, num_attention_heads and ",
        "num_key_value_heads must divide one another, got ",
        model.dim,
        ", ",
        shape.heads,
        ", ",
        shape.kv_heads,
        ".");
  }
  shape.head_dim = model.dim / shape.heads;
  shape.rope.theta = config.number("rope_theta", 1e6f);
  if (const Json* rope = config.find("rope_parameters")) {
    shape.rope.theta =
        Config(*rope, config.path()).number("rope_theta", shape.rope.theta);
  }
  return model;
}

LayerSlot make_lfm2_mlp(
    const Lfm2Shape& model,
    Weights& weights,
    int inner,
    const MlpPaths& paths) {
  auto gate = weights.linear(paths.gate, inner, model.dim, false);
  auto up = weights.linear(paths.up, inner, model.dim, false);
  auto down = weights.linear(paths.down, model.dim, inner, false);
  return std::make_shared<SwigluMlp>(
      std::move(gate), std::move(up), std::move(down));
}

std::unique_ptr<Network> make_lfm2(
    const char* kind,
    const Lfm2Shape& model,
    Weights& weights,
    const MakeFeedForward& make_feed_forward,
    ModelInfo& info) {
  transpose_convolutions(model, weights);
  info.vocab_size = model.vocab;
  info.num_layers = model.layers;
  info.width = model.dim;
  info.max_positions = model.max_positions;
  ResidualParts parts{
      kind,
      "Lfm2DecoderLayer",
      weights.embedding("model.embed_tokens", model.vocab, model.dim),
      {},
      "embedding_norm",
      weights.rms_norm("model.embedding_norm", model.dim, model.eps),
      nullptr};
  parts.head = parts.embedding->as_linear();
  for (int i = 0; i < model.layers; ++i) {
    const std::string path = concat("model.layers.", i, '.');
    parts.blocks.push_back(
        {weights.rms_norm(path + "operator_norm", model.dim, model.eps),
         make_mixer(model, weights, i),
         weights.rms_norm(path + "ffn_norm", model.dim, model.eps),
         make_feed_forward(i, path + "feed_forward."),
         {"operator_norm",
          model.attends[i] ? "self_attn" : "conv",
          "ffn_norm",
          "feed_forward"},
         model.attends[i]});
  }
  return make_residual_network(std::move(parts));
}

} // namespace zmlx
