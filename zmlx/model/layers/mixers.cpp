// SPDX-License-Identifier: MIT
#include "zmlx/model/layers/mixers.h"

#include <cmath>

#include "zmlx/model/quantized_cache.h"

namespace zmlx {

namespace {

mx::array rotated(
    const mx::array& x,
    int head_dim,
    const attention::Rope& rope,
    int offset) {
  std::optional<float> base = rope.theta;
  std::optional<mx::array> periods;
  if (rope.periods) {
    base.reset();
    periods = mx::array(rope.periods->begin(), {head_dim / 2}, mx::float32);
  }
  return mx::fast::rope(x, head_dim, false, base, rope.scale, offset, periods);
}

/// mlx_lm's quantized_scaled_dot_product_attention, causal; queries (batch,
/// heads, length, head_dim).
mx::array attend_quantized(
    mx::array queries,
    const QuantizedRows& keys,
    const QuantizedRows& values,
    const QuantizedKVCache& cache) {
  const mx::Shape shape = queries.shape();
  const int heads = shape[1], kv_heads = keys.words.shape(1);
  const int length = shape[2], dim = shape[3], seen = keys.words.shape(2);
  queries = mx::multiply(
      queries,
      mx::array(1.0f / std::sqrt(static_cast<float>(dim)), queries.dtype()));
  queries =
      mx::reshape(queries, {shape[0], kv_heads, heads / kv_heads, length, dim});
  auto product = [&](const mx::array& x, QuantizedRows w, bool transpose) {
    for (auto* array : {&w.words, &w.scales, &w.biases}) {
      *array = mx::expand_dims(*array, 2);
    }
    return mx::quantized_matmul(
        x,
        w.words,
        w.scales,
        w.biases,
        transpose,
        cache.group_size,
        cache.bits);
  };
  auto scores = product(queries, keys, true);
  if (length > 1) {
    const auto sees = mx::greater_equal(
        mx::expand_dims(mx::arange(seen - length, seen), 1), mx::arange(seen));
    scores = mx::where(
        sees, scores, mx::array(mx::finfo(scores.dtype()).min, scores.dtype()));
  }
  return mx::reshape(
      product(mx::softmax(scores, -1, /* precise */ true), values, false),
      shape);
}

} // namespace

std::vector<Child> Attention::children() {
  std::vector<Child> all;
  const auto add = [&](const char* name, LayerSlot& slot) {
    if (slot) {
      all.push_back({name, slot.get(), &slot});
    }
  };
  add("q_proj", parts.q_proj);
  add("k_proj", parts.k_proj);
  add("v_proj", parts.v_proj);
  add("q_layernorm", parts.q_layernorm);
  add("k_layernorm", parts.k_layernorm);
  add("out_proj", parts.out_proj);
  return all;
}

mx::array Attention::forward_projected(
    const std::vector<mx::array>& projected,
    LayerCache* cache) const {
  const int batch = projected[0].shape(0), length = projected[0].shape(1);
  auto split_heads = [&](const mx::array& y, int heads) {
    return mx::reshape(y, {batch, length, heads, shape.head_dim});
  };
  auto swap = [](const mx::array& y) { return mx::transpose(y, {0, 2, 1, 3}); };
  auto* packed = dynamic_cast<QuantizedKVCache*>(cache);
  auto* kv = packed ? nullptr : static_cast<KVCache*>(cache);
  const int offset = packed ? packed->offset : kv ? kv->offset : 0;
  auto rope = [&](const mx::array& y) {
    return rotated(y, shape.head_dim, shape.rope, offset);
  };
  auto normed = [](const LayerSlot& norm, const mx::array& y) {
    return norm ? norm->forward(y) : y;
  };
  auto queries =
      swap(normed(parts.q_layernorm, split_heads(projected[0], shape.heads)));
  auto keys = swap(
      normed(parts.k_layernorm, split_heads(projected[1], shape.kv_heads)));
  auto values = swap(split_heads(projected[2], shape.kv_heads));
  queries = rope(queries);
  keys = rope(keys);
  auto join_heads = [&](const mx::array& y) {
    return mx::reshape(swap(y), {batch, length, shape.heads * shape.head_dim});
  };
  if (packed) {
    const auto held = packed->update_and_fetch(keys, values);
    return parts.out_proj->forward(join_heads(
        attend_quantized(queries, held.first, held.second, *packed)));
  }
  if (kv) {
    std::tie(keys, values) = kv->update_and_fetch(keys, values);
  }
  auto y = mx::fast::scaled_dot_product_attention(
      queries,
      keys,
      values,
      1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
      length > 1 ? "causal" : "");
  return parts.out_proj->forward(join_heads(y));
}

std::vector<Child> ShortConv::children() {
  return {
      {"in_proj", in_proj.get(), &in_proj},
      {"out_proj", out_proj.get(), &out_proj}};
}

mx::array ShortConv::forward_projected(
    const std::vector<mx::array>& projected,
    LayerCache* cache) const {
  auto parts = mx::split(projected[0], 3, -1);
  auto gated = mx::multiply(parts[0], parts[2]);
  const int batch = gated.shape(0), dim = gated.shape(2), keep = taps() - 1;
  auto* conv = static_cast<ConvCache*>(cache);
  auto before = conv && conv->inputs
      ? *conv->inputs
      : mx::zeros({batch, keep, dim}, gated.dtype());
  gated = mx::concatenate({before, gated}, 1);
  if (conv) {
    const int length = gated.shape(1);
    conv->inputs =
        mx::slice(gated, {0, length - keep, 0}, {batch, length, dim});
  }
  auto y = mx::conv1d(gated, conv_weight.value(), 1, 0, 1, /* groups */ dim);
  if (conv_bias) {
    y = mx::add(y, conv_bias->value());
  }
  return out_proj->forward(mx::multiply(parts[1], y));
}

} // namespace zmlx
