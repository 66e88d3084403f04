// SPDX-License-Identifier: MIT
// Follows mlx_lm 0.32.2, models/lfm2_moe.py, operation by operation.
#include "zmlx/model/families/lfm2_moe.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/layers/mixers.h"
#include "zmlx/model/layers/mlp.h"
#include "zmlx/model/layers/moe.h"

namespace zmlx {
namespace {

struct Args {
  int vocab, dim, layers, dense_layers, dense_dim, expert_dim, experts, top_k;
  int taps;
  Attention::Shape attention;
  bool conv_bias, expert_bias;
  float eps;
  moe::RouterSpec router;
  std::vector<bool> is_attention;
};

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

class Lfm2Moe : public Network {
 public:
  Lfm2Moe(const Args& args, Weights& weights);

  std::string_view kind() const override {
    return "Lfm2MoeModel";
  }
  std::vector<Child> children() override;
  mx::array forward(const mx::array& tokens, Cache& cache, bool last_only)
      override;
  Cache make_cache() const override;
  std::optional<Backbone> backbone() const override;

 private:
  Embedding embed_tokens_;
  std::vector<std::unique_ptr<DecoderLayer>> layers_;
  LayerSlot embedding_norm_, head_;
};

MixerSlot make_mixer(const Args& args, Weights& weights, int layer) {
  const std::string path = concat("model.layers.", layer, '.');
  if (!args.is_attention[layer]) {
    const std::string conv = path + "conv.";
    auto in = weights.linear(
        conv + "in_proj", 3 * args.dim, args.dim, args.conv_bias);
    auto out =
        weights.linear(conv + "out_proj", args.dim, args.dim, args.conv_bias);
    auto taps =
        weights.parameter(conv + "conv.weight", {args.dim, args.taps, 1});
    std::optional<Parameter> bias;
    if (args.conv_bias) {
      bias = weights.parameter(conv + "conv.bias", {args.dim});
    }
    return std::make_shared<ShortConv>(
        std::move(in), std::move(out), std::move(taps), std::move(bias));
  }
  const auto& shape = args.attention;
  const std::string attn = path + "self_attn.";
  const int q_dim = shape.heads * shape.head_dim;
  const int kv_dim = shape.kv_heads * shape.head_dim;
  Attention::Parts parts;
  parts.q_proj = weights.linear(attn + "q_proj", q_dim, args.dim, false);
  parts.k_proj = weights.linear(attn + "k_proj", kv_dim, args.dim, false);
  parts.v_proj = weights.linear(attn + "v_proj", kv_dim, args.dim, false);
  parts.out_proj = weights.linear(attn + "out_proj", args.dim, q_dim, false);
  parts.q_layernorm =
      weights.rms_norm(attn + "q_layernorm", shape.head_dim, args.eps);
  parts.k_layernorm =
      weights.rms_norm(attn + "k_layernorm", shape.head_dim, args.eps);
  return std::make_shared<Attention>(shape, std::move(parts));
}

LayerSlot make_feed_forward(const Args& args, Weights& weights, int layer) {
  const std::string path = concat("model.layers.", layer, ".feed_forward.");
  if (layer < args.dense_layers) {
    return std::make_shared<SwigluMlp>(
        weights.linear(path + "gate_proj", args.dense_dim, args.dim, false),
        weights.linear(path + "up_proj", args.dense_dim, args.dim, false),
        weights.linear(path + "down_proj", args.dim, args.dense_dim, false));
  }
  auto gate = weights.linear(path + "gate", args.experts, args.dim, false);
  std::optional<mx::array> bias;
  if (args.expert_bias) {
    bias = mx::astype(
        weights.take(path + "expert_bias", {args.experts}), mx::float32);
  }
  auto experts = [&](const char* name, int out, int in) {
    return weights.matrix(path + "switch_mlp." + name, {args.experts, out, in});
  };
  return std::make_shared<SparseMoe>(
      "Lfm2MoeSparseMoeBlock",
      args.router,
      std::move(gate),
      std::move(bias),
      std::make_unique<SwitchGlu>(
          experts("gate_proj", args.expert_dim, args.dim),
          experts("up_proj", args.expert_dim, args.dim),
          experts("down_proj", args.dim, args.expert_dim)));
}

Lfm2Moe::Lfm2Moe(const Args& args, Weights& weights)
    : embed_tokens_(
          weights.embedding("model.embed_tokens", args.vocab, args.dim)),
      embedding_norm_(
          weights.rms_norm("model.embedding_norm", args.dim, args.eps)),
      head_(embed_tokens_.as_linear()) {
  for (int i = 0; i < args.layers; ++i) {
    const std::string path = concat("model.layers.", i, '.');
    auto layer = std::make_unique<DecoderLayer>();
    layer->attends = args.is_attention[i];
    layer->operator_norm =
        weights.rms_norm(path + "operator_norm", args.dim, args.eps);
    layer->mixer = make_mixer(args, weights, i);
    layer->ffn_norm = weights.rms_norm(path + "ffn_norm", args.dim, args.eps);
    layer->feed_forward = make_feed_forward(args, weights, i);
    layers_.push_back(std::move(layer));
  }
}

std::vector<Child> Lfm2Moe::children() {
  std::vector<Child> children = {{"model.embed_tokens", &embed_tokens_, {}}};
  for (size_t i = 0; i < layers_.size(); ++i) {
    children.push_back({concat("model.layers.", i), layers_[i].get(), {}});
  }
  children.push_back(
      {"model.embedding_norm", embedding_norm_.get(), &embedding_norm_});
  children.push_back({"lm_head", head_.get(), &head_});
  return children;
}

mx::array
Lfm2Moe::forward(const mx::array& tokens, Cache& cache, bool last_only) {
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

Cache Lfm2Moe::make_cache() const {
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

std::optional<Backbone> Lfm2Moe::backbone() const {
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

moe::RouterSpec router_of(const Config& config, int experts) {
  moe::RouterSpec router;
  router.top_k = config.integer("num_experts_per_tok", 1, experts);
  router.renormalise = config.flag("norm_topk_prob", true);
  const std::string score = config.text("scoring_func", "sigmoid");
  if (score == "sigmoid") {
    router.score = moe::RouterSpec::Score::Sigmoid;
    router.epsilon = 1e-6f;
    router.scale = config.number("routed_scaling_factor", 1.0f);
  } else if (score == "softmax") {
    router.score = moe::RouterSpec::Score::Softmax;
    router.weight_from_biased = config.flag("use_expert_bias", true);
    router.epsilon = 1e-20f;
  } else {
    bad_file(
        config.path(),
        "'scoring_func' must be 'sigmoid' or 'softmax', got '",
        score,
        "'.");
  }
  return router;
}

Args parse(const Config& config) {
  constexpr int kMost = 1 << 24;
  Args args;
  args.vocab = config.integer("vocab_size", 1, kMost);
  args.dim = config.integer("hidden_size", 1, kMost);
  args.layers = config.integer("num_hidden_layers", 1, 10000);
  args.dense_layers = config.integer("num_dense_layers", 0, args.layers);
  args.dense_dim = config.integer("intermediate_size", 1, kMost);
  args.expert_dim = config.integer("moe_intermediate_size", 1, kMost);
  args.experts = config.integer("num_experts", 1, 65536);
  args.taps = config.integer("conv_L_cache", 1, 1024);
  args.conv_bias = config.flag("conv_bias", false);
  args.expert_bias = config.flag("use_expert_bias", true);
  args.eps = config.number("norm_eps", 1e-5f);
  args.router = router_of(config, args.experts);
  args.is_attention = attention_layers(config, args.layers);
  auto& shape = args.attention;
  shape.heads = config.integer("num_attention_heads", 1, args.dim);
  shape.kv_heads = config.integer("num_key_value_heads", 1, shape.heads);
  if (args.dim % shape.heads != 0 || shape.heads % shape.kv_heads != 0) {
    bad_file(
        config.path(),
        "hidden_size, num_attention_heads and ",
        "num_key_value_heads must divide one another, got ",
        args.dim,
        ", ",
        shape.heads,
        ", ",
        shape.kv_heads,
        ".");
  }
  shape.head_dim = args.dim / shape.heads;
  shape.rope_theta = config.number("rope_theta", 1e6f);
  if (const Json* rope = config.find("rope_parameters")) {
    shape.rope_theta =
        Config(*rope, config.path()).number("rope_theta", shape.rope_theta);
  }
  return args;
}

// Hugging Face's layout: (dim, 1, taps) convolutions, w1/w2/w3 for gate, down
// and up, and one matrix an expert or gate and up in one.
void sanitize(const Args& args, Weights& weights) {
  static const std::pair<const char*, const char*> kRenamed[] = {
      {".w1.weight", ".gate_proj.weight"},
      {".w2.weight", ".down_proj.weight"},
      {".w3.weight", ".up_proj.weight"}};
  for (const auto& name : weights.names()) {
    for (const auto& [from, to] : kRenamed) {
      const size_t length = std::char_traits<char>::length(from);
      if (name.size() > length && name.ends_with(from)) {
        weights.rename(name, name.substr(0, name.size() - length) + to);
      }
    }
  }
  for (int i = 0; i < args.layers; ++i) {
    const std::string path = concat("model.layers.", i, '.');
    const std::string conv = path + "conv.conv.weight";
    if (weights.has(conv)) {
      auto tensor = weights.tensor(conv);
      if (tensor.ndim() == 3 && tensor.shape(-1) > tensor.shape(1)) {
        weights.replace(conv, mx::transpose(tensor, {0, 2, 1}));
      }
    }
    const std::string experts = path + "feed_forward.experts.";
    for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
      if (weights.has(concat(experts, "0.", name, ".weight"))) {
        std::vector<mx::array> stacked;
        for (int e = 0; e < args.experts; ++e) {
          stacked.push_back(
              weights.remove(concat(experts, e, '.', name, ".weight")));
        }
        weights.replace(
            concat(path, "feed_forward.switch_mlp.", name, ".weight"),
            mx::stack(stacked));
      }
    }
  }
}

} // namespace

std::unique_ptr<Network>
build_lfm2_moe(const Config& config, Weights& weights, ModelInfo& info) {
  const Args args = parse(config);
  sanitize(args, weights);
  auto network = std::make_unique<Lfm2Moe>(args, weights);
  info.vocab_size = args.vocab;
  info.num_layers = args.layers;
  info.width = args.dim;
  info.max_positions = config.integer("max_position_embeddings", 1, 1 << 30);
  info.active_expert_fraction =
      static_cast<double>(args.router.top_k) / args.experts;
  return network;
}

} // namespace zmlx
