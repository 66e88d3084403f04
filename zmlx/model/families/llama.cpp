// SPDX-License-Identifier: MIT
// Follows mlx_lm 0.32.2, models/llama.py (which is also Mistral's) and
// models/qwen2.py, operation by operation.
#include "zmlx/model/families/llama.h"

#include "zmlx/base/error.h"
#include "zmlx/model/families/decoder.h"

namespace zmlx {
namespace {

void refuse_windows(const Config& config) {
  const Json* types = config.find("layer_types");
  if (!types) {
    return;
  }
  for (const auto& type : *types) {
    if (!type.is_string() || type.get<std::string>() != "full_attention") {
      bad_file(
          config.path(),
          "'layer_types' must all be 'full_attention', got ",
          type.dump(),
          ".");
    }
  }
}

// Files of other programs hold the frequencies too.
void drop_frequencies(const DecoderShape& model, Weights& weights) {
  for (int i = 0; i < model.layers; ++i) {
    const std::string name =
        concat("model.layers.", i, ".self_attn.rotary_emb.inv_freq");
    if (weights.has(name)) {
      weights.remove(name);
    }
  }
}

std::unique_ptr<Network> build(
    const char* kind,
    const DecoderShape& model,
    Weights& weights,
    ModelInfo& info) {
  drop_frequencies(model, weights);
  return make_dense_decoder(kind, model, weights, info);
}

} // namespace

std::unique_ptr<Network>
build_llama(const Config& config, Weights& weights, ModelInfo& info) {
  refuse_windows(config);
  DecoderShape model = read_decoder_shape(config, {10000, true});
  model.names.qkv_bias = model.names.out_bias =
      config.flag("attention_bias", false);
  model.mlp_bias = config.flag("mlp_bias", false);
  return build("LlamaModel", model, weights, info);
}

std::unique_ptr<Network>
build_qwen2(const Config& config, Weights& weights, ModelInfo& info) {
  DecoderShape model = read_decoder_shape(config, {1000000, true});
  model.names.qkv_bias = true;
  return build("Qwen2Model", model, weights, info);
}

} // namespace zmlx
