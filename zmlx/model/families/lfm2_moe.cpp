// SPDX-License-Identifier: MIT
// Follows mlx_lm 0.32.2, models/lfm2_moe.py, operation by operation.
#include "zmlx/model/families/lfm2_moe.h"

#include "zmlx/base/error.h"
#include "zmlx/model/families/lfm2_layers.h"
#include "zmlx/model/layers/moe.h"

namespace zmlx {
namespace {

struct Args {
  Lfm2Shape model;
  int dense_layers, dense_dim, expert_dim, experts;
  bool expert_bias;
  moe::RouterSpec router;
};

LayerSlot make_feed_forward(
    const Args& args,
    Weights& weights,
    int layer,
    const std::string& path) {
  const int dim = args.model.dim;
  if (layer < args.dense_layers) {
    return make_lfm2_mlp(
        args.model,
        weights,
        args.dense_dim,
        {path + "gate_proj", path + "up_proj", path + "down_proj"});
  }
  auto gate = weights.linear(path + "gate", args.experts, dim, false);
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
          experts("gate_proj", args.expert_dim, dim),
          experts("up_proj", args.expert_dim, dim),
          experts("down_proj", dim, args.expert_dim)));
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
  constexpr int kMost = kMostFeatures;
  Args args;
  args.model = read_lfm2_shape(config);
  args.dense_layers = config.integer("num_dense_layers", 0, args.model.layers);
  args.dense_dim = config.integer("intermediate_size", 1, kMost);
  args.expert_dim = config.integer("moe_intermediate_size", 1, kMost);
  args.experts = config.integer("num_experts", 1, 65536);
  args.expert_bias = config.flag("use_expert_bias", true);
  args.router = router_of(config, args.experts);
  return args;
}

// Hugging Face's layout: w1/w2/w3 for gate, down and up, and one matrix an
// expert.
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
  for (int i = 0; i < args.model.layers; ++i) {
    const std::string path = concat("model.layers.", i, ".feed_forward.");
    const std::string experts = path + "experts.";
    for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
      if (weights.has(concat(experts, "0.", name, ".weight"))) {
        std::vector<mx::array> stacked;
        for (int e = 0; e < args.experts; ++e) {
          stacked.push_back(
              weights.remove(concat(experts, e, '.', name, ".weight")));
        }
        weights.replace(
            concat(path, "switch_mlp.", name, ".weight"), mx::stack(stacked));
      }
    }
  }
}

} // namespace

std::unique_ptr<Network>
build_lfm2_moe(const Config& config, Weights& weights, ModelInfo& info) {
  const Args args = parse(config);
  sanitize(args, weights);
  info.active_expert_fraction =
      static_cast<double>(args.router.top_k) / args.experts;
  return make_lfm2(
      "Lfm2MoeModel",
      args.model,
      weights,
      [&](int layer, const std::string& path) {
        return make_feed_forward(args, weights, layer, path);
      },
      info);
}

} // namespace zmlx
