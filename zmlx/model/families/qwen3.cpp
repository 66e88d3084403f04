// SPDX-License-Identifier: MIT
// Follows mlx_lm 0.32.2, models/qwen3.py and models/qwen3_moe.py, operation by
// operation, but rounds the weights of experts to the type of activations.
#include "zmlx/model/families/qwen3.h"

#include <algorithm>
#include <functional>

#include "zmlx/base/error.h"
#include "zmlx/model/families/residual_network.h"
#include "zmlx/model/layers/mixers.h"
#include "zmlx/model/layers/mlp.h"
#include "zmlx/model/layers/moe.h"

namespace zmlx {
namespace {

struct Shape {
  int vocab, dim, layers, max_positions, inner;
  float eps;
  bool tied;
  Attention::Shape attention;
};

// Positions may be given in one of two places, and scaled in neither.
float rope_theta(const Config& config) {
  float theta = config.number("rope_theta", 0.0f);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const Json* rope = config.find(key);
    if (!rope || rope->empty()) {
      continue;
    }
    const Config inner(*rope, config.path());
    const std::string type = inner.text("rope_type", inner.text("type", ""));
    if (type != "default" && type != "") {
      bad_file(
          config.path(),
          "'",
          key,
          "' must be of type 'default', got '",
          type,
          "'.");
    }
    theta = theta == 0 ? inner.number("rope_theta", 0.0f) : theta;
  }
  if (!(theta > 0)) {
    bad_file(config.path(), "'rope_theta' must be above 0, got ", theta, ".");
  }
  return theta;
}

Shape read_shape(const Config& config) {
  Shape model;
  model.vocab = config.integer("vocab_size", 1, kMostFeatures);
  model.dim = config.integer("hidden_size", 1, kMostFeatures);
  model.layers = config.integer("num_hidden_layers", 1, 10000);
  model.inner = config.integer("intermediate_size", 1, kMostFeatures);
  model.max_positions = config.integer("max_position_embeddings", 1, 1 << 30);
  model.eps = config.number("rms_norm_eps", 1e-6f);
  model.tied = config.flag("tie_word_embeddings", false);
  auto& shape = model.attention;
  shape.heads = config.integer("num_attention_heads", 1, 65536);
  shape.kv_heads =
      config.integer("num_key_value_heads", 1, shape.heads, shape.heads);
  if (shape.heads % shape.kv_heads != 0) {
    bad_file(
        config.path(),
        "num_key_value_heads must divide num_attention_heads, got ",
        shape.kv_heads,
        " and ",
        shape.heads,
        ".");
  }
  shape.head_dim =
      config.integer("head_dim", 1, 65536, model.dim / shape.heads);
  shape.rope_theta = rope_theta(config);
  return model;
}

MixerSlot
make_attention(const Shape& model, Weights& weights, const std::string& path) {
  const auto& shape = model.attention;
  const int q_dim = shape.heads * shape.head_dim;
  const int kv_dim = shape.kv_heads * shape.head_dim;
  Attention::Parts parts;
  parts.q_proj = weights.linear(path + "q_proj", q_dim, model.dim, false);
  parts.k_proj = weights.linear(path + "k_proj", kv_dim, model.dim, false);
  parts.v_proj = weights.linear(path + "v_proj", kv_dim, model.dim, false);
  parts.out_proj = weights.linear(path + "o_proj", model.dim, q_dim, false);
  parts.q_layernorm =
      weights.rms_norm(path + "q_norm", shape.head_dim, model.eps);
  parts.k_layernorm =
      weights.rms_norm(path + "k_norm", shape.head_dim, model.eps);
  return std::make_shared<Attention>(shape, std::move(parts));
}

LayerSlot
make_mlp(const Shape& model, Weights& weights, const std::string& path) {
  auto gate = weights.linear(path + "gate_proj", model.inner, model.dim, false);
  auto up = weights.linear(path + "up_proj", model.inner, model.dim, false);
  auto down = weights.linear(path + "down_proj", model.dim, model.inner, false);
  return std::make_shared<SwigluMlp>(
      std::move(gate), std::move(up), std::move(down));
}

using MakeFeedForward =
    std::function<LayerSlot(int layer, const std::string& path)>;

std::unique_ptr<Network> build(
    const char* kind,
    const char* block_kind,
    const Shape& model,
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
         make_attention(model, weights, path + "self_attn."),
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

struct Experts {
  int count, dim, sparse_step;
  std::vector<int> dense_layers;
  moe::RouterSpec router;

  bool has(int layer) const {
    return count > 0 && (layer + 1) % sparse_step == 0 &&
        std::find(dense_layers.begin(), dense_layers.end(), layer) ==
        dense_layers.end();
  }
};

Experts read_experts(const Config& config) {
  Experts experts;
  experts.count = config.integer("num_experts", 0, 65536);
  experts.dim = config.integer("moe_intermediate_size", 1, kMostFeatures);
  experts.sparse_step = config.integer("decoder_sparse_step", 1, 10000, 1);
  if (const Json* layers = config.find("mlp_only_layers")) {
    for (const auto& layer : *layers) {
      if (!layer.is_number_integer()) {
        bad_file(
            config.path(),
            "'mlp_only_layers' must be integers, got ",
            layer.dump(),
            ".");
      }
      experts.dense_layers.push_back(layer.get<int>());
    }
  }
  experts.router.top_k =
      config.integer("num_experts_per_tok", 1, std::max(1, experts.count));
  experts.router.renormalise = config.flag("norm_topk_prob", false);
  return experts;
}

LayerSlot make_moe(
    const Shape& model,
    const Experts& experts,
    Weights& weights,
    const std::string& path) {
  const int n = experts.count, dim = model.dim, inner = experts.dim;
  auto gate = weights.linear(path + "gate", n, dim, false);
  const std::string mlp = path + "switch_mlp.";
  return std::make_shared<SparseMoe>(
      "Qwen3MoeSparseMoeBlock",
      experts.router,
      std::move(gate),
      std::nullopt,
      std::make_unique<SwitchGlu>(
          weights.matrix(mlp + "gate_proj", {n, inner, dim}),
          weights.matrix(mlp + "up_proj", {n, inner, dim}),
          weights.matrix(mlp + "down_proj", {n, dim, inner})));
}

// Hugging Face's layout has one matrix an expert.
void stack_experts(
    const Shape& model,
    const Experts& experts,
    Weights& weights) {
  for (int i = 0; i < model.layers; ++i) {
    const std::string path = concat("model.layers.", i, ".mlp.");
    for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
      if (!weights.has(concat(path, "experts.0.", name, ".weight"))) {
        continue;
      }
      std::vector<mx::array> stacked;
      for (int e = 0; e < experts.count; ++e) {
        stacked.push_back(
            weights.remove(concat(path, "experts.", e, '.', name, ".weight")));
      }
      weights.replace(
          concat(path, "switch_mlp.", name, ".weight"), mx::stack(stacked));
    }
  }
}

} // namespace

std::unique_ptr<Network>
build_qwen3(const Config& config, Weights& weights, ModelInfo& info) {
  const Shape model = read_shape(config);
  return build(
      "Qwen3Model",
      "TransformerBlock",
      model,
      weights,
      [&](int, const std::string& path) {
        return make_mlp(model, weights, path);
      },
      info);
}

std::unique_ptr<Network>
build_qwen3_moe(const Config& config, Weights& weights, ModelInfo& info) {
  const Shape model = read_shape(config);
  const Experts experts = read_experts(config);
  stack_experts(model, experts, weights);
  if (experts.count > 0) {
    info.active_expert_fraction =
        static_cast<double>(experts.router.top_k) / experts.count;
  }
  return build(
      "Qwen3MoeModel",
      "Qwen3MoeDecoderLayer",
      model,
      weights,
      [&](int layer, const std::string& path) {
        return experts.has(layer) ? make_moe(model, experts, weights, path)
                                  : make_mlp(model, weights, path);
      },
      info);
}

} // namespace zmlx
