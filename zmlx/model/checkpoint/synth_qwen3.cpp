// SPDX-License-Identifier: MIT
// The shapes of Qwen3's models.
#include "zmlx/base/error.h"
#include "zmlx/model/checkpoint/synth_list.h"

namespace zmlx {
namespace {

struct Qwen3Size {
  int vocab, hidden, dense_inner;
  int heads, kv_heads, head_dim, positions;
  int expert_inner, experts, experts_per_token;
  int bos, eos;
};

Json qwen3_config(const Qwen3Size& size, int layers) {
  return {
      {"model_type", "qwen3_moe"},
      {"vocab_size", size.vocab},
      {"hidden_size", size.hidden},
      {"intermediate_size", size.dense_inner},
      {"moe_intermediate_size", size.expert_inner},
      {"num_hidden_layers", layers},
      {"num_attention_heads", size.heads},
      {"num_key_value_heads", size.kv_heads},
      {"head_dim", size.head_dim},
      {"num_experts", size.experts},
      {"num_experts_per_tok", size.experts_per_token},
      {"norm_topk_prob", true},
      {"decoder_sparse_step", 1},
      {"mlp_only_layers", Json::array()},
      {"max_position_embeddings", size.positions},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 1000000.0},
      {"rope_scaling", nullptr},
      {"attention_bias", false},
      {"bos_token_id", size.bos},
      {"eos_token_id", size.eos},
      {"tie_word_embeddings", false}};
}

void add_layer(
    SynthList& weights,
    const Qwen3Size& size,
    const std::string& layer) {
  const int dim = size.hidden, head = size.head_dim;
  const int q_dim = size.heads * head, kv_dim = size.kv_heads * head;
  const std::string attention = layer + "self_attn.";
  weights.plain(layer + "input_layernorm.weight", {dim}, 1);
  weights.linear(attention + "q_proj", {q_dim, dim});
  weights.linear(attention + "k_proj", {kv_dim, dim});
  weights.linear(attention + "v_proj", {kv_dim, dim});
  weights.linear(attention + "o_proj", {dim, q_dim});
  weights.plain(attention + "q_norm.weight", {head}, 1);
  weights.plain(attention + "k_norm.weight", {head}, 1);
  weights.plain(layer + "post_attention_layernorm.weight", {dim}, 1);
  weights.gate(layer + "mlp.gate", {size.experts, dim});
  weights.experts(
      layer + "mlp.switch_mlp.", size.experts, size.expert_inner, dim);
}

SynthModel
qwen3(const Qwen3Size& size, int layers, const Quantization& packing) {
  SynthList weights{packing, {}};
  weights.linear("model.embed_tokens", {size.vocab, size.hidden});
  for (int i = 0; i < layers; ++i) {
    add_layer(weights, size, concat("model.layers.", i, '.'));
  }
  weights.plain("model.norm.weight", {size.hidden}, 1);
  weights.linear("lm_head", {size.vocab, size.hidden});
  return {qwen3_config(size, layers), std::move(weights.list)};
}

} // namespace

SynthModel qwen3_30b_a3b(int layers, const Quantization& packing) {
  const Qwen3Size size{
      .vocab = 151936,
      .hidden = 2048,
      .dense_inner = 6144,
      .heads = 32,
      .kv_heads = 4,
      .head_dim = 128,
      .positions = 40960,
      .expert_inner = 768,
      .experts = 128,
      .experts_per_token = 8,
      .bos = 151643,
      .eos = 151645};
  return qwen3(size, layers, packing);
}

SynthModel qwen3_moe_tiny(int layers, const Quantization& packing) {
  const Qwen3Size size{
      .vocab = 512,
      .hidden = 128,
      .dense_inner = 256,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 64,
      .positions = 2048,
      .expert_inner = 128,
      .experts = 16,
      .experts_per_token = 4,
      .bos = 1,
      .eos = 2};
  return qwen3(size, layers, packing);
}

} // namespace zmlx
