// SPDX-License-Identifier: MIT
// The shapes of LFM2 and LFM2-MoE, and the table of all.
#include "zmlx/model/checkpoint/synth_shapes.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/checkpoint/synth_list.h"

namespace zmlx {
namespace {

namespace mx = mlx::core;

// What differs between the sizes of the LFM2 and LFM2-MoE families.
struct Lfm2Size {
  int vocab, hidden, dense_inner;
  int heads, kv_heads, positions;
  std::vector<int> attention_layers;
  // Of LFM2-MoE; LFM2 has no experts.
  int expert_inner = 0, experts = 0, experts_per_token = 0, dense_layers = 0;
};

bool is_attention(const Lfm2Size& size, int layer) {
  const auto& list = size.attention_layers;
  return std::find(list.begin(), list.end(), layer) != list.end();
}

Json lfm2_config(const Lfm2Size& size, int layers) {
  Json types = Json::array();
  for (int i = 0; i < layers; ++i) {
    types.push_back(is_attention(size, i) ? "full_attention" : "conv");
  }
  Json config = {
      {"vocab_size", size.vocab},
      {"hidden_size", size.hidden},
      {"intermediate_size", size.dense_inner},
      {"num_hidden_layers", layers},
      {"num_attention_heads", size.heads},
      {"num_key_value_heads", size.kv_heads},
      {"max_position_embeddings", size.positions},
      {"norm_eps", 1e-5},
      {"conv_bias", false},
      {"conv_L_cache", 3},
      {"rope_theta", 1000000.0},
      {"layer_types", types},
      {"eos_token_id", 7},
      {"bos_token_id", 1},
      {"pad_token_id", 0},
      {"tie_embedding", true}};
  if (size.experts == 0) {
    config.update(
        {{"model_type", "lfm2"},
         {"block_dim", size.hidden},
         {"block_auto_adjust_ff_dim", false},
         {"block_ffn_dim_multiplier", 1.0},
         {"block_multiple_of", 256}});
  } else {
    config.update(
        {{"model_type", "lfm2_moe"},
         {"moe_intermediate_size", size.expert_inner},
         {"num_experts", size.experts},
         {"num_experts_per_tok", size.experts_per_token},
         {"norm_topk_prob", true},
         {"use_expert_bias", true},
         {"num_dense_layers", size.dense_layers},
         {"routed_scaling_factor", 1.0}});
  }
  return config;
}

void add_mixer(
    SynthList& weights,
    const Lfm2Size& size,
    const std::string& layer,
    bool attention) {
  const int dim = size.hidden, head = dim / size.heads;
  if (!attention) {
    weights.linear(layer + "conv.in_proj", {3 * dim, dim});
    weights.linear(layer + "conv.out_proj", {dim, dim});
    weights.plain(layer + "conv.conv.weight", {dim, 3, 1}, 0.3f);
    return;
  }
  const std::string path = layer + "self_attn.";
  weights.linear(path + "q_proj", {dim, dim});
  weights.linear(path + "k_proj", {size.kv_heads * head, dim});
  weights.linear(path + "v_proj", {size.kv_heads * head, dim});
  weights.linear(path + "out_proj", {dim, dim});
  weights.plain(path + "q_layernorm.weight", {head}, 1);
  weights.plain(path + "k_layernorm.weight", {head}, 1);
}

void add_feed_forward(
    SynthList& weights,
    const Lfm2Size& size,
    const std::string& layer,
    bool dense) {
  const int dim = size.hidden;
  const std::string path = layer + "feed_forward.";
  if (size.experts == 0) {
    weights.linear(path + "w1", {size.dense_inner, dim});
    weights.linear(path + "w3", {size.dense_inner, dim});
    weights.linear(path + "w2", {dim, size.dense_inner});
    return;
  }
  if (dense) {
    weights.linear(path + "gate_proj", {size.dense_inner, dim});
    weights.linear(path + "up_proj", {size.dense_inner, dim});
    weights.linear(path + "down_proj", {dim, size.dense_inner});
    return;
  }
  weights.gate(path + "gate", {size.experts, dim});
  weights.plain(path + "expert_bias", {size.experts}, 0).dtype = mx::float32;
  weights.experts(path + "switch_mlp.", size.experts, size.expert_inner, dim);
}

SynthModel lfm2(const Lfm2Size& size, int layers, const Quantization& packing) {
  SynthList weights{packing, {}};
  weights.linear("model.embed_tokens", {size.vocab, size.hidden});
  weights.plain("model.embedding_norm.weight", {size.hidden}, 1);
  for (int i = 0; i < layers; ++i) {
    const std::string layer = concat("model.layers.", i, '.');
    weights.plain(layer + "operator_norm.weight", {size.hidden}, 1);
    weights.plain(layer + "ffn_norm.weight", {size.hidden}, 1);
    add_mixer(weights, size, layer, is_attention(size, i));
    add_feed_forward(weights, size, layer, i < size.dense_layers);
  }
  return {lfm2_config(size, layers), std::move(weights.list)};
}

SynthModel lfm2_1_2b(int layers, const Quantization& packing) {
  const Lfm2Size size{
      .vocab = 65536,
      .hidden = 2048,
      .dense_inner = 8192,
      .heads = 32,
      .kv_heads = 8,
      .positions = 128000,
      .attention_layers = {2, 5, 8, 10, 12, 14}};
  return lfm2(size, layers, packing);
}

SynthModel lfm2_8b_a1b(int layers, const Quantization& packing) {
  const Lfm2Size size{
      .vocab = 65536,
      .hidden = 2048,
      .dense_inner = 7168,
      .heads = 32,
      .kv_heads = 8,
      .positions = 128000,
      .attention_layers = {2, 6, 10, 14, 18, 21},
      .expert_inner = 1792,
      .experts = 32,
      .experts_per_token = 4,
      .dense_layers = 2};
  return lfm2(size, layers, packing);
}

SynthModel lfm2_moe_tiny(int layers, const Quantization& packing) {
  const Lfm2Size size{
      .vocab = 512,
      .hidden = 128,
      .dense_inner = 256,
      .heads = 4,
      .kv_heads = 2,
      .positions = 2048,
      .attention_layers = {2},
      .expert_inner = 128,
      .experts = 8,
      .experts_per_token = 2,
      .dense_layers = 1};
  return lfm2(size, layers, packing);
}

} // namespace

const std::vector<SynthShape>& synth_shape_table() {
  static const std::vector<SynthShape> table = {
      {"lfm2-1.2b", 16, 3, lfm2_1_2b},
      {"lfm2-8b-a1b", 24, 3, lfm2_8b_a1b},
      {"lfm2-moe-tiny", 4, 3, lfm2_moe_tiny},
      {"qwen3-30b-a3b", 48, 1, qwen3_30b_a3b},
      {"qwen3-moe-tiny", 4, 1, qwen3_moe_tiny},
  };
  return table;
}

} // namespace zmlx
