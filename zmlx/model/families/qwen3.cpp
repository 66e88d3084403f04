// SPDX-License-Identifier: MIT
// Follows mlx_lm 0.32.2, models/qwen3.py and models/qwen3_moe.py, operation by
// operation, but rounds the weights of experts to the type of activations.
#include "zmlx/model/families/qwen3.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/families/decoder.h"
#include "zmlx/model/layers/moe.h"

namespace zmlx {
namespace {

DecoderShape read_shape(const Config& config) {
  DecoderShape model = read_decoder_shape(config, {});
  model.names.q_norm = "q_norm";
  model.names.k_norm = "k_norm";
  return model;
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
    const DecoderShape& model,
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
    const DecoderShape& model,
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
  const DecoderShape model = read_shape(config);
  return make_dense_decoder("Qwen3Model", model, weights, info);
}

std::unique_ptr<Network>
build_qwen3_moe(const Config& config, Weights& weights, ModelInfo& info) {
  const DecoderShape model = read_shape(config);
  const Experts experts = read_experts(config);
  stack_experts(model, experts, weights);
  if (experts.count > 0) {
    info.active_expert_fraction =
        static_cast<double>(experts.router.top_k) / experts.count;
  }
  return make_decoder(
      "Qwen3MoeModel",
      "Qwen3MoeDecoderLayer",
      model,
      weights,
      [&](int layer, const std::string& path) {
        return experts.has(layer) ? make_moe(model, experts, weights, path)
                                  : make_decoder_mlp(model, weights, path);
      },
      info);
}

} // namespace zmlx
