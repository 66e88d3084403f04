// SPDX-License-Identifier: MIT
#include "zmlx/model/families/lfm2_layers.h"

#include "zmlx/base/error.h"
#include "zmlx/model/layers/mlp.h"

namespace zmlx {
namespace {

class DecoderLayer : public Module {
 public:
  std::string_view kind() const override {
    return "Lfm2DecoderLayer";
  }
  std::vector<Child> children() override {
    return {
        {"operator_norm", operator_norm.get(), &operator_norm},
        {attends ? "self_attn" : "conv", mixer.get(), &mixer},
        {"ffn_norm", ffn_norm.get(), &ffn_norm},
        {"feed_forward", feed_forward.get(), &feed_forward}};
  }
  mx::array forward(const mx::array& x, LayerCache* cache) const {
    auto h = mx::add(x, mixer->forward(operator_norm->forward(x), cache));
    return mx::add(h, feed_forward->forward(ffn_norm->forward(h)));
  }

  bool attends = false;
  LayerSlot operator_norm, ffn_norm, feed_forward;
  MixerSlot mixer;
};

class Lfm2 : public Network {
 public:
  Lfm2(
      const char* kind,
      const Lfm2Shape& model,
      Weights& weights,
      const MakeFeedForward& make_feed_forward);

  std::string_view kind() const override {
    return kind_;
  }
  std::vector<Child> children() override;
  mx::array forward(const mx::array& tokens, Cache& cache, bool last_only)
      override;
  Cache make_cache() const override;
  std::optional<Backbone> backbone() const override;

 private:
  const char* kind_;
  Embedding embed_tokens_;
  std::vector<std::unique_ptr<DecoderLayer>> layers_;
  LayerSlot embedding_norm_, head_;
};

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
  const auto& shape = model.attention;
  const std::string attn = path + "self_attn.";
  const int q_dim = shape.heads * shape.head_dim;
  const int kv_dim = shape.kv_heads * shape.head_dim;
  Attention::Parts parts;
  parts.q_proj = weights.linear(attn + "q_proj", q_dim, model.dim, false);
  parts.k_proj = weights.linear(attn + "k_proj", kv_dim, model.dim, false);
  parts.v_proj = weights.linear(attn + "v_proj", kv_dim, model.dim, false);
  parts.out_proj = weights.linear(attn + "out_proj", model.dim, q_dim, false);
  parts.q_layernorm =
      weights.rms_norm(attn + "q_layernorm", shape.head_dim, model.eps);
  parts.k_layernorm =
      weights.rms_norm(attn + "k_layernorm", shape.head_dim, model.eps);
  return std::make_shared<Attention>(shape, std::move(parts));
}

Lfm2::Lfm2(
    const char* kind,
    const Lfm2Shape& model,
    Weights& weights,
    const MakeFeedForward& make_feed_forward)
    : kind_(kind),
      embed_tokens_(
          weights.embedding("model.embed_tokens", model.vocab, model.dim)),
      embedding_norm_(
          weights.rms_norm("model.embedding_norm", model.dim, model.eps)),
      head_(embed_tokens_.as_linear()) {
  for (int i = 0; i < model.layers; ++i) {
    const std::string path = concat("model.layers.", i, '.');
    auto layer = std::make_unique<DecoderLayer>();
    layer->attends = model.attends[i];
    layer->operator_norm =
        weights.rms_norm(path + "operator_norm", model.dim, model.eps);
    layer->mixer = make_mixer(model, weights, i);
    layer->ffn_norm = weights.rms_norm(path + "ffn_norm", model.dim, model.eps);
    layer->feed_forward = make_feed_forward(i, path + "feed_forward.");
    layers_.push_back(std::move(layer));
  }
}

std::vector<Child> Lfm2::children() {
  std::vector<Child> children = {{"model.embed_tokens", &embed_tokens_, {}}};
  for (size_t i = 0; i < layers_.size(); ++i) {
    children.push_back({concat("model.layers.", i), layers_[i].get(), {}});
  }
  children.push_back(
      {"model.embedding_norm", embedding_norm_.get(), &embedding_norm_});
  children.push_back({"lm_head", head_.get(), &head_});
  return children;
}

mx::array Lfm2::forward(const mx::array& tokens, Cache& cache, bool last_only) {
  auto h = embed_tokens_.lookup(tokens);
  for (size_t i = 0; i < layers_.size(); ++i) {
    h = layers_[i]->forward(h, cache.empty() ? nullptr : cache[i].get());
  }
  if (last_only) {
    const int length = h.shape(1);
    h = mx::slice(h, {0, length - 1, 0}, {h.shape(0), length, h.shape(2)});
  }
  return head_->forward(embedding_norm_->forward(h));
}

Cache Lfm2::make_cache() const {
  Cache cache;
  for (const auto& layer : layers_) {
    if (layer->attends) {
      cache.push_back(std::make_unique<KVCache>());
    } else {
      cache.push_back(std::make_unique<ConvCache>());
    }
  }
  return cache;
}

std::optional<Backbone> Lfm2::backbone() const {
  Backbone backbone{&embed_tokens_, {}, embedding_norm_, head_};
  for (const auto& layer : layers_) {
    backbone.blocks.push_back(
        {layer->operator_norm,
         layer->mixer,
         layer->ffn_norm,
         layer->feed_forward});
  }
  return backbone;
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
  shape.rope_theta = config.number("rope_theta", 1e6f);
  if (const Json* rope = config.find("rope_parameters")) {
    shape.rope_theta =
        Config(*rope, config.path()).number("rope_theta", shape.rope_theta);
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
  return std::make_unique<Lfm2>(kind, model, weights, make_feed_forward);
}

} // namespace zmlx
