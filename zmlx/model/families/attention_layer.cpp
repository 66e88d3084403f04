// SPDX-License-Identifier: MIT
#include "zmlx/model/families/attention_layer.h"

#include <cmath>
#include <numbers>

#include "zmlx/base/error.h"

namespace zmlx {

MixerSlot make_attention(
    Weights& weights,
    const std::string& path,
    const AttentionNames& names,
    const Attention::Shape& shape,
    int dim,
    float eps) {
  const int q_dim = shape.heads * shape.head_dim;
  const int kv_dim = shape.kv_heads * shape.head_dim;
  const bool bias = names.qkv_bias;
  Attention::Parts parts;
  parts.q_proj = weights.linear(path + names.q, q_dim, dim, bias);
  parts.k_proj = weights.linear(path + names.k, kv_dim, dim, bias);
  parts.v_proj = weights.linear(path + names.v, kv_dim, dim, bias);
  parts.out_proj = weights.linear(path + names.out, dim, q_dim, names.out_bias);
  if (!names.q_norm.empty()) {
    parts.q_layernorm =
        weights.rms_norm(path + names.q_norm, shape.head_dim, eps);
    parts.k_layernorm =
        weights.rms_norm(path + names.k_norm, shape.head_dim, eps);
  }
  return std::make_shared<Attention>(shape, std::move(parts));
}

Attention::Shape read_heads(const Config& config, int dim) {
  Attention::Shape shape;
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
  if (!config.find("head_dim") && dim % shape.heads != 0) {
    bad_file(
        config.path(),
        "num_attention_heads must divide hidden_size, got ",
        shape.heads,
        " and ",
        dim,
        ".");
  }
  shape.head_dim = config.integer("head_dim", 1, 65536, dim / shape.heads);
  return shape;
}

namespace {

float positive(const Config& config, const char* key, float value) {
  if (!(value > 0)) {
    bad_file(config.path(), "'", key, "' must be above 0, got ", value, ".");
  }
  return value;
}

// Operation by operation as mlx_lm 0.32.2, models/rope_utils.py, so that
// periods have the same bits.
std::vector<float>
llama3_periods(const Config& rope, int head_dim, float theta) {
  const float factor = positive(rope, "factor", rope.number("factor", {}));
  const float low = rope.number("low_freq_factor", 1.0f);
  const float high = rope.number("high_freq_factor", 4.0f);
  const float context = rope.number("original_max_position_embeddings", 8192);
  auto number = [](float value) { return mx::array(value); };
  mx::array periods = mx::power(
      number(theta),
      mx::arange(0, head_dim, 2) / number(static_cast<float>(head_dim)));
  const mx::array lengths = number(2 * std::numbers::pi_v<float>) * periods;
  const mx::array longest = number(context / low);
  const mx::array shortest = number(context / high);
  periods = mx::where(lengths > longest, periods * number(factor), periods);
  const mx::array between =
      mx::logical_and(lengths > shortest, lengths < longest);
  const mx::array smooth =
      (number(context) / lengths - number(low)) / number(high - low);
  const mx::array mixed =
      periods / ((number(1) - smooth) / number(factor) + smooth);
  periods = mx::contiguous(mx::where(between, mixed, periods));
  periods.eval();
  return {periods.data<float>(), periods.data<float>() + periods.size()};
}

} // namespace

attention::Rope read_rope(const Config& config, int head_dim, float theta) {
  attention::Rope rope;
  rope.theta = config.number("rope_theta", 0.0f);
  const char* where = nullptr;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const Json* found = config.find(key);
    if (found && !found->empty()) {
      where = where ? where : key;
      if (rope.theta == 0) {
        rope.theta = Config(*found, config.path()).number("rope_theta", 0.0f);
      }
    }
  }
  rope.theta =
      positive(config, "rope_theta", rope.theta == 0 ? theta : rope.theta);
  if (!where) {
    return rope;
  }
  const Config scaling(*config.find(where), config.path());
  const std::string type =
      scaling.text("type", scaling.text("rope_type", "default"));
  if (type == "linear") {
    rope.scale = 1 / positive(scaling, "factor", scaling.number("factor", {}));
  } else if (type == "llama3") {
    rope.periods = std::make_shared<const std::vector<float>>(
        llama3_periods(scaling, head_dim, rope.theta));
  } else if (type != "default") {
    bad_file(
        config.path(),
        "'",
        where,
        "' must be of type 'default', 'linear' or 'llama3', got '",
        type,
        "'.");
  }
  return rope;
}

} // namespace zmlx
