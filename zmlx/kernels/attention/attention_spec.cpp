// SPDX-License-Identifier: MIT
// Reference, cases and spec of attention.
#include <cmath>

#include "zmlx/authoring/registry.h"
#include "zmlx/kernels/attention/attention.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::kernels {
namespace {

using reference::whole;

attention::Spec spec_of(const Params& params) {
  attention::Spec spec;
  spec.heads = whole(params, "heads");
  spec.kv_heads = whole(params, "kv_heads");
  spec.head_dim = whole(params, "head_dim");
  return spec;
}

Arrays run(const Arrays& in, const Params& params) {
  const auto out = attention::attend(
      {in[0], in[1], in[2], in[3], in[4], in[5], in[6]},
      spec_of(params),
      whole(params, "offset"));
  return {out.y, out.cached_keys, out.cached_values};
}

// Rotary embedding of halves at positions offset .. of (batch, heads, length,
// head_dim); angles in float32, as models have them.
mx::array rotated(const mx::array& x, const attention::Spec& spec, int offset) {
  if (x.dtype() != mx::float64) {
    return mx::fast::rope(
        x, spec.head_dim, false, spec.rope.theta, 1.0f, offset);
  }
  const int half = spec.head_dim / 2, length = x.shape(2);
  const mx::array place = mx::arange(0, half) / mx::array(float(half));
  const mx::array frequency =
      mx::exp(mx::negative(place * mx::array(std::log(spec.rope.theta))));
  const mx::array angles =
      mx::expand_dims(
          mx::astype(mx::arange(offset, offset + length), mx::float32), 1) *
      frequency;
  const mx::array c = mx::cos(angles), s = mx::sin(angles);
  const auto parts = mx::split(x, 2, -1);
  return mx::concatenate(
      {parts[0] * c - parts[1] * s, parts[0] * s + parts[1] * c}, -1);
}

// Keys that a query may see, added to the scores: 0 or -inf.
mx::array causal(int length, int offset, mx::Dtype dtype) {
  const mx::array seen = mx::arange(0, offset + length) <=
      mx::expand_dims(mx::arange(offset, offset + length), 1);
  return mx::astype(
      mx::where(seen, mx::array(0.0f), mx::array(-INFINITY)), dtype);
}

Arrays composed(const Arrays& in, const Params& params) {
  const auto spec = spec_of(params);
  const int offset = whole(params, "offset");
  const int batch = in[0].shape(0), length = in[0].shape(1);
  const auto heads = [&](const mx::array& x, int count) {
    return mx::reshape(x, {batch, length, count, spec.head_dim});
  };
  const auto turned = [&](const mx::array& x, const mx::array& weight) {
    return rotated(
        mx::transpose(
            reference::rms_norm(x, weight, spec.norm_eps), {0, 2, 1, 3}),
        spec,
        offset);
  };
  const auto appended = [&](const mx::array& cache, const mx::array& rows) {
    mx::Shape end = rows.shape();
    end[2] = offset + length;
    return mx::slice_update(cache, rows, {0, 0, offset, 0}, end);
  };
  const mx::array keys =
      appended(in[5], turned(heads(in[1], spec.kv_heads), in[4]));
  const mx::array values =
      appended(in[6], mx::transpose(heads(in[2], spec.kv_heads), {0, 2, 1, 3}));
  const auto seen = [&](const mx::array& cache) {
    mx::Shape end = cache.shape();
    end[2] = offset + length;
    return mx::slice(cache, {0, 0, 0, 0}, end);
  };
  const mx::array q = turned(heads(in[0], spec.heads), in[3]);
  const float scale = 1 / std::sqrt(static_cast<float>(spec.head_dim));
  mx::array y = q;
  if (q.dtype() != mx::float64) {
    y = mx::fast::scaled_dot_product_attention(
        q, seen(keys), seen(values), scale, length > 1 ? "causal" : "");
  } else {
    const auto each = [&](const mx::array& cache) {
      return mx::repeat(seen(cache), spec.heads / spec.kv_heads, 1);
    };
    const mx::array scores =
        mx::matmul(q, mx::transpose(each(keys), {0, 1, 3, 2})) *
        reference::number(scale, q);
    y = mx::matmul(
        reference::softmax(scores + causal(length, offset, q.dtype())),
        each(values));
  }
  return {
      mx::reshape(
          mx::transpose(y, {0, 2, 1, 3}),
          {batch, length, spec.heads * spec.head_dim}),
      keys,
      values};
}

KernelCase
case_of(int batch, int length, int offset, int capacity, attention::Spec spec) {
  const mx::Shape queries = {batch, length, spec.heads * spec.head_dim};
  const mx::Shape keys = {batch, length, spec.kv_heads * spec.head_dim};
  const mx::Shape cache = {batch, spec.kv_heads, capacity, spec.head_dim};
  return {
      mx::float32,
      {queries, keys, keys, {spec.head_dim}, {spec.head_dim}, cache, cache},
      {{"heads", spec.heads},
       {"kv_heads", spec.kv_heads},
       {"head_dim", spec.head_dim},
       {"offset", offset}}};
}

KernelSpec attention_kernel() {
  return {
      .family = "attention",
      .name = "attention",
      .summary =
          "Norm, rotary embedding, cache update and causal grouped-query "
          "attention",
      .call = "zmlx::attention::attend(inputs, spec, offset)",
      .inputs =
          {{"queries", "(batch, length, heads * head_dim) float32"},
           {"keys", "(batch, length, kv_heads * head_dim) float32"},
           {"values", "as keys"},
           {"query_norm", "(head_dim) float"},
           {"key_norm", "(head_dim) float"},
           {"cached_keys", "(batch, kv_heads, capacity, head_dim) float32"},
           {"cached_values", "as cached_keys"}},
      .outputs =
          {{"y", "as queries"},
           {"cached_keys", "with the new rows"},
           {"cached_values", "with the new rows"}},
      .params =
          {{"heads", "query heads, a multiple of kv_heads"},
           {"kv_heads", "heads of the cache"},
           {"head_dim", "even"},
           {"offset", "the first new position"}},
      .run = run,
      .reference = composed,
      .gpu = false,
      .cases =
          {case_of(2, 5, 0, 16, {4, 2, 32}),
           case_of(1, 1, 7, 8, {3, 1, 64}),
           case_of(2, 1, 0, 1, {2, 2, 32}),
           case_of(1, 9, 13, 40, {8, 2, 64})},
      .bench =
          {case_of(1, 1, 511, 512, {32, 8, 64}),
           case_of(1, 128, 0, 512, {32, 8, 64})},
      .terms =
          [](const KernelCase& one) {
            return int64_t{one.shapes[0][1]} + whole(one.params, "offset") +
                whole(one.params, "head_dim");
          },
      // Angles of the last position are off by a float32 epsilon of theirs.
      .ulps = 64,
      // What lies behind the causal mask is not read here, but is multiplied by
      // zero in the reference.
      .specials = Specials::kNone,
  };
}

} // namespace

void register_attention(Registry& registry) {
  registry.add(attention_kernel());
}

} // namespace zmlx::kernels
