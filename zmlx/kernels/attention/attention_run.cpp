// SPDX-License-Identifier: MIT
#include "zmlx/kernels/attention/attention_run.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

#include "zmlx/kernels/common/vector_math.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::attention {
namespace {

// Cosines and sines of a position, (head_dim / 2) each, as MLX computes them.
struct Rotation {
  Rotation(const std::vector<float>& frequencies, float position) {
    for (const float frequency : frequencies) {
      const float angle = position * frequency;
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
  if (weight) {
    cpu::scale_mul(x, cpu::rms_scale(x, dim, spec.norm_eps), weight, out, dim);
  } else {
    std::copy(x, x + dim, out);
  }
  for (int i = 0; i < half; ++i) {
    const float a = out[i], b = out[i + half];
    out[i] = a * rotation.cosines[i] - b * rotation.sines[i];
    out[i + half] = a * rotation.sines[i] + b * rotation.cosines[i];
  }
}

/// Appends token t's keys and values of one head to the caches.
void append(
    const Call& call,
    int b,
    int t,
    int kv_head,
    const Rotation& rotation) {
  const int dim = call.spec.head_dim;
  std::vector<float> keys, values, rotated(static_cast<size_t>(dim));
  const int64_t row = int64_t{b} * call.length + t;
  const int64_t to = call.cache_row(b, kv_head, call.offset + t);
  norm_and_rotate(
      call.keys.row(row, keys) + kv_head * dim,
      call.key_norm,
      call.spec,
      rotation,
      rotated.data());
  call.cached_keys.store(to, rotated.data());
  call.cached_values.store(to, call.values.row(row, values) + kv_head * dim);
}

/// The queries of token t that share a kv head, ready for the cache.
void prepare_queries(
    const Call& call,
    int b,
    int t,
    int kv_head,
    const Rotation& rotation,
    float* out) {
  const Spec& spec = call.spec;
  const int dim = spec.head_dim, group = spec.heads / spec.kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  std::vector<float> scratch;
  const float* queries =
      call.queries.row(int64_t{b} * call.length + t, scratch) +
      int64_t{kv_head} * group * dim;
  for (int g = 0; g < group; ++g) {
    norm_and_rotate(
        queries + g * dim, call.query_norm, spec, rotation, out + g * dim);
  }
  for (int i = 0; i < group * dim; ++i) {
    out[i] *= scale;
  }
}

/// Few new tokens: chunks of the cache are shared among threads.
class FewTokens {
 public:
  FewTokens(const Call& call, const std::vector<Rotation>& rotations)
      : call_(call),
        rotations_(rotations),
        group_(call.spec.heads / call.spec.kv_heads),
        chunks_(cpu::attention_chunks(call.offset + call.length)),
        stride_(cpu::partial_size(group_, call.spec.head_dim)),
        partials_(static_cast<size_t>(heads() * chunks_ * stride_)) {}

  /// (batch, length, kv_heads) in all.
  int64_t heads() const {
    return int64_t{call_.batch} * call_.length * call_.spec.kv_heads;
  }

  void attend(int thread, ThreadTeam& team) {
    std::vector<float> queries(
        static_cast<size_t>(group_ * call_.spec.head_dim));
    const Range mine = share(heads() * chunks_, 1, thread, team.size());
    for (int64_t task = mine.begin; task < mine.end; ++task) {
      const auto [b, t, kv_head] = place(task / chunks_);
      const int64_t chunk = task % chunks_, seen = call_.offset + t + 1;
      if (chunk < cpu::attention_chunks(seen)) {
        prepare_queries(call_, b, t, kv_head, rotations_[t], queries.data());
        cpu::attend_chunk(
            call_.head(b, kv_head),
            queries.data(),
            group_,
            chunk,
            seen,
            partials_.data() + task * stride_);
      }
    }
    team.barrier();
    const Range merges = share(heads(), 1, thread, team.size());
    for (int64_t head = merges.begin; head < merges.end; ++head) {
      const int t = place(head).t;
      cpu::merge_chunks(
          partials_.data() + head * chunks_ * stride_,
          stride_,
          cpu::attention_chunks(call_.offset + t + 1),
          group_,
          call_.spec.head_dim,
          call_.y + head * group_ * call_.spec.head_dim);
    }
  }

 private:
  struct Place {
    int b, t, kv_head;
  };
  Place place(int64_t head) const {
    const int64_t row = head / call_.spec.kv_heads;
    return {
        static_cast<int>(row / call_.length),
        static_cast<int>(row % call_.length),
        static_cast<int>(head % call_.spec.kv_heads)};
  }

  const Call& call_;
  const std::vector<Rotation>& rotations_;
  int group_;
  int64_t chunks_, stride_;
  std::vector<float> partials_;
};

// Tokens of one head that one task takes: the cost of unpacking a chunk of the
// cache is then under a tenth.
constexpr int kTokensATask = 64;
constexpr int kFewTokens = 8;

/// Many new tokens: heads and blocks of tokens are shared among threads.
void attend_block(
    const Call& call,
    int b,
    int kv_head,
    int first,
    const std::vector<Rotation>& rotations) {
  const Spec& spec = call.spec;
  const int group = spec.heads / spec.kv_heads, dim = spec.head_dim;
  const int last = std::min(call.length, first + kTokensATask);
  const auto rows = static_cast<size_t>((last - first) * group);
  std::vector<float> queries(rows * dim);
  std::vector<int64_t> seen;
  std::vector<float*> out;
  for (int t = first; t < last; ++t) {
    prepare_queries(
        call, b, t, kv_head, rotations[t], queries.data() + seen.size() * dim);
    float* y = call.y +
        ((int64_t{b} * call.length + t) * spec.heads + kv_head * group) * dim;
    for (int g = 0; g < group; ++g) {
      seen.push_back(call.offset + t + 1);
      out.push_back(y + g * dim);
    }
  }
  cpu::attend_rows(
      call.head(b, kv_head),
      queries.data(),
      seen.data(),
      static_cast<int64_t>(rows),
      out.data());
}

} // namespace

void run(const Call& call) {
  const auto team = thread_team();
  const Spec& spec = call.spec;
  const auto frequencies = spec.rope.frequencies(spec.head_dim);
  std::vector<Rotation> rotations;
  for (int t = 0; t < call.length; ++t) {
    rotations.emplace_back(
        frequencies, static_cast<float>(call.offset + t) * spec.rope.scale);
  }
  std::optional<FewTokens> few;
  if (call.length < kFewTokens) {
    few.emplace(call, rotations);
  }
  const int blocks = (call.length + kTokensATask - 1) / kTokensATask;
  std::atomic<int64_t> left{int64_t{call.batch} * spec.kv_heads * blocks};
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
    if (few) {
      few->attend(thread, *team);
      return;
    }
    // Later tokens see more: they go first, so that threads end together.
    for (int64_t task; (task = --left) >= 0;) {
      const auto head = static_cast<int>(task % (call.batch * spec.kv_heads));
      const auto block = static_cast<int>(task / (call.batch * spec.kv_heads));
      attend_block(
          call,
          head / spec.kv_heads,
          head % spec.kv_heads,
          block * kTokensATask,
          rotations);
    }
  });
}

} // namespace zmlx::attention
