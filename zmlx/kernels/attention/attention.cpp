// SPDX-License-Identifier: MIT
#include "zmlx/kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/kernels/common/vector_math.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::attention {
namespace {

// Cosines and sines of a position, (head_dim / 2) each, as MLX computes them.
struct Rotation {
  Rotation(const Spec& spec, int position) {
    const int half = spec.head_dim / 2;
    for (int i = 0; i < half; ++i) {
      const float frequency =
          std::exp(-static_cast<float>(i) * (std::log(spec.rope_theta) / half));
      const float angle = static_cast<float>(position) * frequency;
      cosines.push_back(std::cos(angle));
      sines.push_back(std::sin(angle));
    }
  }
  std::vector<float> cosines, sines;
};

void norm_and_rotate(
    const float* x,
    const float* weight,
    const Spec& spec,
    const Rotation& rotation,
    float* out) {
  const int dim = spec.head_dim, half = dim / 2;
  const float mean = cpu::dot(x, x, dim) / static_cast<float>(dim);
  cpu::scale_mul(x, 1.0f / std::sqrt(mean + spec.norm_eps), weight, out, dim);
  for (int i = 0; i < half; ++i) {
    const float a = out[i], b = out[i + half];
    out[i] = a * rotation.cosines[i] - b * rotation.sines[i];
    out[i + half] = a * rotation.sines[i] + b * rotation.cosines[i];
  }
}

/// One call's data, with every array evaluated.
struct Call {
  const Spec& spec;
  int batch, length, offset;
  int64_t capacity;
  RowReader queries, keys, values;
  const float *query_norm, *key_norm;
  float *cached_keys, *cached_values;
  float* y;

  int64_t cache_row(int b, int kv_head, int position) const {
    return ((int64_t{b} * spec.kv_heads + kv_head) * capacity + position) *
        spec.head_dim;
  }
};

/// Appends token t's keys and values of one head to the caches.
void append(
    const Call& call,
    int b,
    int t,
    int kv_head,
    const Rotation& rotation) {
  const int dim = call.spec.head_dim;
  std::vector<float> keys, values;
  const int64_t row = int64_t{b} * call.length + t;
  const int64_t to = call.cache_row(b, kv_head, call.offset + t);
  norm_and_rotate(
      call.keys.row(row, keys) + kv_head * dim,
      call.key_norm,
      call.spec,
      rotation,
      call.cached_keys + to);
  std::memcpy(
      call.cached_values + to,
      call.values.row(row, values) + kv_head * dim,
      sizeof(float) * dim);
}

/// One query head of token t over everything cached up to it.
void attend_one(
    const Call& call,
    int b,
    int t,
    int head,
    const Rotation& rotation,
    std::vector<float>& scores) {
  const Spec& spec = call.spec;
  const int dim = spec.head_dim, seen = call.offset + t + 1;
  const int kv_head = head / (spec.heads / spec.kv_heads);
  const int64_t row = int64_t{b} * call.length + t;
  std::vector<float> scratch, query(static_cast<size_t>(dim));
  norm_and_rotate(
      call.queries.row(row, scratch) + head * dim,
      call.query_norm,
      spec,
      rotation,
      query.data());
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const float* keys = call.cached_keys + call.cache_row(b, kv_head, 0);
  const float* values = call.cached_values + call.cache_row(b, kv_head, 0);
  scores.resize(static_cast<size_t>(seen));
  float most = -INFINITY;
  for (int j = 0; j < seen; ++j) {
    scores[j] = scale * cpu::dot(query.data(), keys + int64_t{j} * dim, dim);
    most = std::max(most, scores[j]);
  }
  const float sum = cpu::exp_and_sum(scores.data(), most, seen);
  float* out = call.y + (row * spec.heads + head) * dim;
  std::fill(out, out + dim, 0.0f);
  for (int j = 0; j < seen; ++j) {
    cpu::axpy(scores[j] / sum, values + int64_t{j} * dim, out, dim);
  }
}

void run(const Call& call) {
  const auto team = thread_team();
  const Spec& spec = call.spec;
  std::vector<Rotation> rotations;
  for (int t = 0; t < call.length; ++t) {
    rotations.emplace_back(spec, call.offset + t);
  }
  team->run([&](int thread) {
    const int64_t appends = int64_t{call.batch} * call.length * spec.kv_heads;
    const auto mine = share(appends, 1, thread, team->size());
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t row = i / spec.kv_heads;
      const int t = static_cast<int>(row % call.length);
      append(
          call,
          static_cast<int>(row / call.length),
          t,
          static_cast<int>(i % spec.kv_heads),
          rotations[t]);
    }
    team->barrier();
    // Later tokens see more: every thread takes each size()-th token's heads.
    std::vector<float> scores;
    const int64_t rows = int64_t{call.batch} * call.length;
    if (rows >= team->size()) {
      for (int64_t row = thread; row < rows; row += team->size()) {
        const int t = static_cast<int>(row % call.length);
        for (int head = 0; head < spec.heads; ++head) {
          attend_one(
              call,
              static_cast<int>(row / call.length),
              t,
              head,
              rotations[t],
              scores);
        }
      }
      return;
    }
    const auto heads = share(rows * spec.heads, 1, thread, team->size());
    for (int64_t i = heads.begin; i < heads.end; ++i) {
      const int64_t row = i / spec.heads;
      const int t = static_cast<int>(row % call.length);
      attend_one(
          call,
          static_cast<int>(row / call.length),
          t,
          static_cast<int>(i % spec.heads),
          rotations[t],
          scores);
    }
  });
}

void check(const Inputs& in, const Spec& spec, int offset) {
  constexpr const char* kOp = "attention";
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
  const int capacity = in.cached_keys.shape(2);
  const mx::Shape cache = {batch, spec.kv_heads, capacity, spec.head_dim};
  if (in.cached_keys.shape() != cache || in.cached_values.shape() != cache ||
      offset + length > capacity) {
    invalid(
        kOp,
        "the caches must have shape (",
        batch,
        ", ",
        spec.kv_heads,
        ", ",
        offset + length,
        " or more, ",
        spec.head_dim,
        "), got ",
        in.cached_keys.shape(),
        " and ",
        in.cached_values.shape(),
        '.');
  }
  for (const auto* array :
       {&in.queries,
        &in.keys,
        &in.values,
        &in.cached_keys,
        &in.cached_values}) {
    if (array->dtype() != mx::float32) {
      invalid(kOp, "arrays must be float32, got ", array->dtype(), '.');
    }
  }
}

} // namespace

Outputs attend(const Inputs& in, const Spec& spec, int offset) {
  check(in, spec, offset);
  auto outputs = cpu_op(
      "AttentionCpu",
      {in.queries,
       in.keys,
       in.values,
       mx::contiguous(mx::astype(in.query_norm, mx::float32)),
       mx::contiguous(mx::astype(in.key_norm, mx::float32)),
       in.cached_keys,
       in.cached_values},
      {{in.queries.shape(), mx::float32},
       {in.cached_keys.shape(), mx::float32, 5},
       {in.cached_values.shape(), mx::float32, 6}},
      [spec, offset](const auto& arrays, auto& out) {
        run(
            {spec,
             arrays[0].shape(0),
             arrays[0].shape(1),
             offset,
             out[1].shape(2),
             RowReader(arrays[0]),
             RowReader(arrays[1]),
             RowReader(arrays[2]),
             arrays[3].template data<float>(),
             arrays[4].template data<float>(),
             out[1].template data<float>(),
             out[2].template data<float>(),
             out[0].template data<float>()});
      });
  return {outputs[0], outputs[1], outputs[2]};
}

} // namespace zmlx::attention
