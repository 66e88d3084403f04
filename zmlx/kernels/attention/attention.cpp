// SPDX-License-Identifier: MIT
#include "zmlx/kernels/attention/attention.h"

#include <cmath>

#include "zmlx/base/error.h"
#include "zmlx/kernels/attention/attention_run.h"
#include "zmlx/runtime/cpu_op.h"

namespace zmlx::attention {
namespace {

constexpr const char* kOp = "attention";

void check_float(std::initializer_list<const mx::array*> arrays) {
  for (const auto* array : arrays) {
    if (array->dtype() != mx::float32) {
      invalid(kOp, "arrays must be float32, got ", array->dtype(), '.');
    }
  }
}

template <class In>
void check_new(const In& in, const Spec& spec) {
  const int batch = in.queries.shape(0), length = in.queries.shape(1);
  const mx::Shape kv = {batch, length, spec.kv_heads * spec.head_dim};
  if (in.queries.shape() !=
          mx::Shape{batch, length, spec.heads * spec.head_dim} ||
      in.keys.shape() != kv || in.values.shape() != kv) {
    invalid(
        kOp,
        "keys and values must have shape ",
        kv,
        " for queries ",
        in.queries.shape(),
        ", got ",
        in.keys.shape(),
        " and ",
        in.values.shape(),
        '.');
  }
  check_float({&in.queries, &in.keys, &in.values});
  for (const auto* norm : {&in.query_norm, &in.key_norm}) {
    if (norm->has_value() != in.query_norm.has_value() ||
        (*norm && (*norm)->shape() != mx::Shape{spec.head_dim})) {
      invalid(
          kOp,
          "query_norm and key_norm must both have shape (",
          spec.head_dim,
          "), or both be absent.");
    }
  }
  if (spec.rope.periods &&
      2 * spec.rope.periods->size() != static_cast<size_t>(spec.head_dim)) {
    invalid(
        kOp,
        "rotary positions must have ",
        spec.head_dim / 2,
        " periods, got ",
        spec.rope.periods->size(),
        '.');
  }
}

/// Two caches whose rows have `width` values, with room for `needed` rows.
void check_caches(
    const mx::array& keys,
    const mx::array& values,
    int batch,
    const Spec& spec,
    int needed,
    int width) {
  const mx::Shape shape = {batch, spec.kv_heads, keys.shape(2), width};
  if (keys.shape() != shape || values.shape() != shape ||
      needed > keys.shape(2)) {
    invalid(
        kOp,
        "the caches must have shape (",
        batch,
        ", ",
        spec.kv_heads,
        ", ",
        needed,
        " or more, ",
        width,
        "), got ",
        keys.shape(),
        " and ",
        values.shape(),
        '.');
  }
}

void check_packed(const PackedInputs& in, const Spec& spec, int offset) {
  check_new(in, spec);
  const auto &keys = in.cached_keys, &values = in.cached_values;
  const int batch = in.queries.shape(0), needed = offset + in.keys.shape(1);
  const int width = keys.words.shape(3) == spec.head_dim / 8
      ? spec.head_dim / 8 // four bits
      : spec.head_dim / 4;
  check_caches(keys.words, values.words, batch, spec, needed, width);
  const int groups = keys.scales.shape(3);
  const int size = groups > 0 ? spec.head_dim / groups : 0;
  if (size * groups != spec.head_dim ||
      (size != 32 && size != 64 && size != 128)) {
    invalid(
        kOp,
        "groups of the caches must have 32, 64 or 128 of ",
        spec.head_dim,
        " values, got ",
        size,
        '.');
  }
  check_caches(keys.scales, values.scales, batch, spec, needed, groups);
  check_caches(keys.biases, values.biases, batch, spec, needed, groups);
  check_float({&keys.scales, &keys.biases, &values.scales, &values.biases});
  for (const auto* words : {&keys.words, &values.words}) {
    if (words->dtype() != mx::uint32) {
      invalid(kOp, "packed caches must be uint32, got ", words->dtype(), '.');
    }
  }
}

/// The norms stand last, where there are any.
template <class In>
void add_norms(const In& in, std::vector<mx::array>& arrays) {
  for (const auto* norm : {&in.query_norm, &in.key_norm}) {
    if (*norm) {
      arrays.push_back(mx::contiguous(mx::astype(**norm, mx::float32)));
    }
  }
}

/// A call on evaluated arrays with `caches` of them, but for these.
Call call_of(
    const Spec& spec,
    int offset,
    size_t caches,
    const std::vector<mx::array>& in,
    std::vector<mx::array>& out) {
  const auto norm = [&](size_t i) {
    const size_t at = 3 + caches + i;
    return at < in.size() ? in[at].data<float>() : nullptr;
  };
  return {
      spec,
      in[0].shape(0),
      in[0].shape(1),
      offset,
      out[1].shape(2),
      RowReader(in[0]),
      RowReader(in[1]),
      RowReader(in[2]),
      norm(0),
      norm(1),
      {},
      {},
      out[0].data<float>()};
}

cpu::CacheRows packed_rows(
    const Spec& spec,
    mx::array& words,
    mx::array& scales,
    mx::array& biases) {
  cpu::CacheRows rows;
  rows.bytes = words.data<uint8_t>();
  rows.scales = scales.data<float>();
  rows.biases = biases.data<float>();
  rows.group_size = spec.head_dim / scales.shape(3);
  rows.head_dim = spec.head_dim;
  rows.bits = 32 * words.shape(3) / spec.head_dim;
  return rows;
}

} // namespace

std::vector<float> Rope::frequencies(int head_dim) const {
  const int half = head_dim / 2;
  std::vector<float> frequencies;
  for (int i = 0; i < half; ++i) {
    frequencies.push_back(
        periods ? 1.0f / (*periods)[static_cast<size_t>(i)]
                : std::exp(
                      -static_cast<float>(i) *
                      (std::log(theta) / static_cast<float>(half))));
  }
  return frequencies;
}

bool Rope::operator==(const Rope& other) const {
  return scale == other.scale && !periods == !other.periods &&
      (periods ? *periods == *other.periods : theta == other.theta);
}

Outputs attend(const Inputs& in, const Spec& spec, int offset) {
  check_new(in, spec);
  check_caches(
      in.cached_keys,
      in.cached_values,
      in.queries.shape(0),
      spec,
      offset + in.keys.shape(1),
      spec.head_dim);
  check_float({&in.cached_keys, &in.cached_values});
  std::vector<mx::array> arrays = {
      in.queries, in.keys, in.values, in.cached_keys, in.cached_values};
  add_norms(in, arrays);
  auto outputs = cpu_op(
      "AttentionCpu",
      std::move(arrays),
      {{in.queries.shape(), mx::float32},
       {in.cached_keys.shape(), mx::float32, 3},
       {in.cached_values.shape(), mx::float32, 4}},
      [spec, offset](const auto& arrays, auto& out) {
        Call call = call_of(spec, offset, 2, arrays, out);
        call.cached_keys.floats = out[1].template data<float>();
        call.cached_values.floats = out[2].template data<float>();
        call.cached_keys.head_dim = spec.head_dim;
        call.cached_values.head_dim = spec.head_dim;
        run(call);
      });
  return {outputs[0], outputs[1], outputs[2]};
}

PackedOutputs
attend_packed(const PackedInputs& in, const Spec& spec, int offset) {
  check_packed(in, spec, offset);
  std::vector<mx::array> arrays = {in.queries, in.keys, in.values};
  std::vector<CpuOutput> outputs = {{in.queries.shape(), mx::float32}};
  for (const auto* cache : {&in.cached_keys, &in.cached_values}) {
    for (const auto* array : {&cache->words, &cache->scales, &cache->biases}) {
      outputs.push_back(
          {array->shape(), array->dtype(), static_cast<int>(arrays.size())});
      arrays.push_back(*array);
    }
  }
  add_norms(in, arrays);
  auto out = cpu_op(
      "PackedAttentionCpu",
      std::move(arrays),
      outputs,
      [spec, offset](const auto& arrays, auto& out) {
        Call call = call_of(spec, offset, 6, arrays, out);
        call.cached_keys = packed_rows(spec, out[1], out[2], out[3]);
        call.cached_values = packed_rows(spec, out[4], out[5], out[6]);
        run(call);
      });
  return {out[0], {out[1], out[2], out[3]}, {out[4], out[5], out[6]}};
}

} // namespace zmlx::attention
