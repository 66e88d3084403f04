// SPDX-License-Identifier: MIT
// The attention stage: heads whole or in chunks of their past.
#include <cmath>

#include "zmlx/kernels/attention/cached_head.h"
#include "zmlx/kernels/common/vector_math.h"
#include "zmlx/model/decode/cpu_workspace.h"

namespace zmlx::decode {
namespace {

class Attend : public CpuStage {
 public:
  Attend(const AttendStage& stage, Workspace& work)
      : spec_(stage.spec),
        query_norm_(data_of(stage.query_norm)),
        key_norm_(data_of(stage.key_norm)),
        layer_(static_cast<size_t>(stage.layer)),
        rotation_(static_cast<size_t>(work.add_rotation(spec_))),
        head_phase_(work.add_phase()),
        chunk_phase_(work.add_phase()) {}

  void reserve(Workspace& work, int batch) const override {
    work.mixed.reserve(batch, int64_t{spec_.heads} * spec_.head_dim);
    work.partials.reserve(
        batch * spec_.kv_heads,
        cpu::attention_chunks(work.step.position + 1) * partial_size());
  }
  uint64_t nbytes() const override {
    return 0;
  }
  uint64_t cache_nbytes(const Step& step) const override {
    const auto& rows = step.layers[layer_].keys;
    const int64_t each = rows.floats
        ? int64_t{4} * spec_.head_dim
        : rows.row_bytes() + 8 * (spec_.head_dim / rows.group_size);
    return static_cast<uint64_t>(
        2 * each * (int64_t{step.position} + 1) * step.batch * spec_.kv_heads);
  }
  cpu::RowsAhead first(const Lane&) const override {
    return {};
  }

  void run(Lane& lane) const override {
    const int64_t heads = int64_t{lane.batch()} * spec_.kv_heads;
    const int64_t chunks = cpu::attention_chunks(most_seen(lane));
    const auto for_each = [&](int phase, int64_t count, const auto& work) {
      lane.tasks(
          phase,
          count,
          [](int64_t) { return cpu::RowsAhead(); },
          [&](int64_t task, const cpu::RowsAhead&) { work(task); });
    };
    // A short context is one chunk: each head is done by one thread at once.
    for_each(head_phase_, heads, [&](int64_t head) {
      append(lane, head);
      if (chunks == 1) {
        attend(lane, head, 0);
        merge(lane, head);
      }
    });
    if (chunks == 1) {
      return;
    }
    lane.barrier();
    for_each(chunk_phase_, heads * chunks, [&](int64_t task) {
      const int64_t head = task / chunks, chunk = task % chunks;
      if (chunk < cpu::attention_chunks(seen(lane, head))) {
        attend(lane, head, chunk);
      }
    });
    lane.barrier();
    const auto mine = lane.share_of(heads, 1);
    for (int64_t head = mine.begin; head < mine.end; ++head) {
      merge(lane, head);
    }
  }

 private:
  int group() const {
    return spec_.heads / spec_.kv_heads;
  }
  int64_t partial_size() const {
    return cpu::partial_size(group(), spec_.head_dim);
  }
  static int64_t most_seen(const Lane& lane) {
    return int64_t{lane.step.position} + 1;
  }
  int64_t start_of(const Lane& lane, int64_t head) const {
    return lane.step.start_of(head / spec_.kv_heads);
  }
  int64_t seen(const Lane& lane, int64_t head) const {
    return most_seen(lane) - start_of(lane, head);
  }
  // The queries, and then the results, of the heads that share keys.
  float* heads_of(Rows& rows, int64_t head) const {
    return rows[head / spec_.kv_heads] +
        head % spec_.kv_heads * group() * spec_.head_dim;
  }

  void norm_and_rotate(
      const Rotation& rotation,
      int64_t sequence,
      const float* weight,
      float scale,
      float* x) const {
    const int dim = spec_.head_dim, half = dim / 2;
    if (weight) {
      cpu::scale_mul(x, cpu::rms_scale(x, dim, spec_.norm_eps), weight, x, dim);
    }
    const float* cosines = rotation.cosines.data() + rotation.row_of(sequence);
    const float* sines = rotation.sines.data() + rotation.row_of(sequence);
    for (int i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = scale * (a * cosines[i] - b * sines[i]);
      x[i + half] = scale * (a * sines[i] + b * cosines[i]);
    }
  }

  // The new key and value of a head go to the cache; its queries are rotated
  // and scaled in place.
  void append(Lane& lane, int64_t head) const {
    const int dim = spec_.head_dim;
    const LayerState& state = lane.step.layers[layer_];
    const Rotation& rotation = lane.work.rotations[rotation_];
    const int64_t b = head / spec_.kv_heads;
    const int64_t column = head % spec_.kv_heads * dim;
    const int64_t to = head * state.capacity + lane.step.position;
    float* key = lane.work.keys[b] + column;
    norm_and_rotate(rotation, b, key_norm_, 1, key);
    state.keys.store(to, key);
    state.values.store(to, lane.work.values[b] + column);
    float* queries = heads_of(lane.work.queries, head);
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    for (int i = 0; i < group(); ++i) {
      float* query = queries + i * dim;
      norm_and_rotate(rotation, b, query_norm_, scale, query);
    }
  }

  void attend(Lane& lane, int64_t head, int64_t chunk) const {
    const LayerState& state = lane.step.layers[layer_];
    const int64_t first = head * state.capacity + start_of(lane, head);
    cpu::attend_chunk(
        {state.keys.from(first), state.values.from(first), spec_.head_dim},
        heads_of(lane.work.queries, head),
        group(),
        chunk,
        seen(lane, head),
        lane.work.partials[head] + chunk * partial_size());
  }

  void merge(Lane& lane, int64_t head) const {
    cpu::merge_chunks(
        lane.work.partials[head],
        partial_size(),
        cpu::attention_chunks(seen(lane, head)),
        group(),
        spec_.head_dim,
        heads_of(lane.work.mixed, head));
  }

  attention::Spec spec_;
  const float *query_norm_, *key_norm_;
  size_t layer_, rotation_;
  int head_phase_, chunk_phase_;
};

} // namespace

CpuStagePtr compile(const AttendStage& stage, Workspace& work) {
  return std::make_unique<Attend>(stage, work);
}

} // namespace zmlx::decode
