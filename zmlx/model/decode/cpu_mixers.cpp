// SPDX-License-Identifier: MIT
// Stages around the sequence mixers: short convolution, attention, and the
// projection that adds their result to the residual stream.
#include <cmath>
#include <utility>

#include "zmlx/kernels/attention/cached_head.h"
#include "zmlx/kernels/common/vector_math.h"
#include "zmlx/model/decode/cpu_workspace.h"

namespace zmlx::decode {
namespace {

/// (W x)[row] + bias[row] for each sequence, written to to(b) + row.
template <class To>
void project(
    Lane& lane,
    const Matrix& matrix,
    const float* bias,
    Range rows,
    const cpu::RowsAhead& next,
    const To& to) {
  lane.outputs.clear();
  for (int b = 0; b < lane.batch(); ++b) {
    lane.outputs.push_back(to(b) + rows.begin);
  }
  multiply(
      lane, matrix.view, lane.work.x[matrix.pool_index], nullptr, rows, next);
  for (float* out : lane.outputs) {
    if (bias) {
      cpu::axpy(1, bias + rows.begin, out, rows.end - rows.begin);
    }
  }
}

class Conv : public CpuStage {
 public:
  Conv(const ConvStage& stage, Workspace& work)
      : in_(stage.in.weight, work.x),
        in_bias_(data_of(stage.in.bias)),
        preparation_(&stage.norm, {&in_}),
        taps_(stage.taps.data<float>()),
        bias_(data_of(stage.bias)),
        num_taps_(stage.taps.shape(0)),
        dim_(stage.taps.shape(1)),
        layer_(static_cast<size_t>(stage.layer)),
        phase_(work.add_phase()) {
    work.mixed_prepared = true;
  }

  void reserve(Workspace& work, int batch) const override {
    work.mixed.reserve(batch, dim_);
    work.projected.reserve(batch, 3 * dim_);
  }
  uint64_t nbytes() const override {
    return in_.view.nbytes();
  }

  void run(Lane& lane) const override {
    preparation_.run(lane, lane.work.h);
    for_each_block(
        lane,
        phase_,
        3 * dim_,
        [&](int64_t row) { return in_.view.ahead(row); },
        [&](Range block, const cpu::RowsAhead& next) {
          project(lane, in_, in_bias_, block, next, [&](int b) {
            return lane.work.projected[b];
          });
        });
    lane.barrier();
    const auto [begin, end] = lane.share_of(dim_, Preparation::kColumns);
    for (int b = 0; b < lane.batch() && begin < end; ++b) {
      const float* gate = lane.work.projected[b] + begin;
      convolve(
          gate,
          gate + dim_,
          gate + 2 * dim_,
          begin,
          end - begin,
          lane.work.step.layers[layer_].inputs + b * (num_taps_ - 1) * dim_ +
              begin,
          lane.work.mixed[b] + begin);
    }
    lane.next_stage->prepare(lane, begin, end);
  }
  cpu::RowsAhead first(const Lane& lane) const override {
    return in_.view.ahead(own_rows(lane, 3 * dim_));
  }

 private:
  void convolve(
      const float* gate,
      const float* scale,
      const float* x,
      int64_t first,
      int64_t count,
      float* inputs,
      float* y) const {
    const float* newest = taps_ + (num_taps_ - 1) * dim_ + first;
    std::fill(y, y + count, 0.0f);
    for (int64_t k = 0; k + 1 < num_taps_; ++k) {
      float* row = inputs + k * dim_;
      const float* taps = taps_ + k * dim_ + first;
      const bool last = k + 2 == num_taps_;
      for (int64_t i = 0; i < count; ++i) {
        y[i] += row[i] * taps[i];
        row[i] = last ? gate[i] * x[i] : row[dim_ + i];
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      const float sum = y[i] + gate[i] * x[i] * newest[i];
      y[i] = scale[i] * (bias_ ? sum + bias_[first + i] : sum);
    }
  }

  Matrix in_;
  const float* in_bias_;
  Preparation preparation_;
  const float *taps_, *bias_;
  int64_t num_taps_, dim_;
  size_t layer_;
  int phase_;
};

class Qkv : public CpuStage {
 public:
  Qkv(const QkvStage& stage, Workspace& work)
      : parts_{
            {Matrix(stage.q.weight, work.x), data_of(stage.q.bias)},
            {Matrix(stage.k.weight, work.x), data_of(stage.k.bias)},
            {Matrix(stage.v.weight, work.x), data_of(stage.v.bias)}},
        preparation_(
            &stage.norm,
            {&parts_[0].matrix, &parts_[1].matrix, &parts_[2].matrix}),
        phase_(work.add_phase()) {}

  void reserve(Workspace& work, int batch) const override {
    work.queries.reserve(batch, parts_[0].matrix.view.rows());
    work.keys.reserve(batch, parts_[1].matrix.view.rows());
    work.values.reserve(batch, parts_[2].matrix.view.rows());
  }
  uint64_t nbytes() const override {
    uint64_t sum = 0;
    for (const auto& part : parts_) {
      sum += part.matrix.view.nbytes();
    }
    return sum;
  }

  void run(Lane& lane) const override {
    preparation_.run(lane, lane.work.h);
    Rows* const out[] = {
        &lane.work.queries, &lane.work.keys, &lane.work.values};
    const int64_t total = num_rows();
    for_each_block(
        lane,
        phase_,
        total,
        [&](int64_t row) { return ahead(row); },
        [&](Range block, const cpu::RowsAhead& next) {
          int64_t first = 0;
          for (int i = 0; i < 3; ++i) {
            const int64_t rows = parts_[i].matrix.view.rows();
            const Range mine = {
                std::max(block.begin, first) - first,
                std::min(block.end, first + rows) - first};
            if (mine.begin < mine.end) {
              project(
                  lane,
                  parts_[i].matrix,
                  parts_[i].bias,
                  mine,
                  next,
                  [&](int b) { return (*out[i])[b]; });
            }
            first += rows;
          }
        });
  }
  cpu::RowsAhead first(const Lane& lane) const override {
    const auto mine = own_rows(lane, num_rows());
    int64_t before = 0;
    for (const auto& part : parts_) {
      const auto& view = part.matrix.view;
      if (mine.begin < before + view.rows()) {
        return view.ahead(
            Range{
                mine.begin - before, std::min(view.rows(), mine.end - before)});
      }
      before += view.rows();
    }
    return {};
  }

 private:
  int64_t num_rows() const {
    int64_t total = 0;
    for (const auto& part : parts_) {
      total += part.matrix.view.rows();
    }
    return total;
  }
  // Rows of the three matrices one after the other.
  cpu::RowsAhead ahead(int64_t row) const {
    for (const auto& part : parts_) {
      if (row < part.matrix.view.rows()) {
        return part.matrix.view.ahead(row);
      }
      row -= part.matrix.view.rows();
    }
    return {};
  }

  struct Part {
    Matrix matrix;
    const float* bias;
  };
  Part parts_[3];
  Preparation preparation_;
  int phase_;
};

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
    return int64_t{lane.work.step.position} + 1;
  }
  int64_t start_of(const Lane& lane, int64_t head) const {
    return lane.work.step.start_of(head / spec_.kv_heads);
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
      const float mean = cpu::dot(x, x, dim) / static_cast<float>(dim);
      cpu::scale_mul(
          x, 1.0f / std::sqrt(mean + spec_.norm_eps), weight, x, dim);
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
    const LayerState& state = lane.work.step.layers[layer_];
    const Rotation& rotation = lane.work.rotations[rotation_];
    const int64_t b = head / spec_.kv_heads;
    const int64_t column = head % spec_.kv_heads * dim;
    const int64_t to = head * state.capacity + lane.work.step.position;
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
    const LayerState& state = lane.work.step.layers[layer_];
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

class Mix : public CpuStage {
 public:
  Mix(const MixStage& stage, Workspace& work)
      : out_(stage.out.weight, work.x),
        bias_(data_of(stage.out.bias)),
        preparation_(nullptr, {&out_}),
        prepared_(std::exchange(work.mixed_prepared, false)),
        phase_(work.add_phase()) {}

  void reserve(Workspace&, int) const override {}
  uint64_t nbytes() const override {
    return out_.view.nbytes();
  }

  void prepare(Lane& lane, int64_t begin, int64_t end) const override {
    for (int b = 0; b < lane.batch(); ++b) {
      preparation_.prepare(lane, b, lane.work.mixed[b], begin, end);
    }
  }

  void run(Lane& lane) const override {
    if (!prepared_) {
      preparation_.run(lane, lane.work.mixed);
    }
    for_each_block(
        lane,
        phase_,
        out_.view.rows(),
        [&](int64_t row) { return out_.view.ahead(row); },
        [&](Range block, const cpu::RowsAhead& next) {
          const int64_t count = block.end - block.begin;
          float* parts = lane.floats(count * lane.batch());
          project(lane, out_, bias_, block, next, [&](int b) {
            return parts + b * count - block.begin;
          });
          for (int b = 0; b < lane.batch(); ++b) {
            cpu::axpy(
                1, parts + b * count, lane.work.h[b] + block.begin, count);
          }
        });
  }
  cpu::RowsAhead first(const Lane& lane) const override {
    return out_.view.ahead(own_rows(lane, out_.view.rows()));
  }

 private:
  Matrix out_;
  const float* bias_;
  Preparation preparation_;
  bool prepared_; // by the stage before
  int phase_;
};

} // namespace

CpuStagePtr compile(const ConvStage& stage, Workspace& work) {
  return std::make_unique<Conv>(stage, work);
}

CpuStagePtr compile(const QkvStage& stage, Workspace& work) {
  return std::make_unique<Qkv>(stage, work);
}

CpuStagePtr compile(const AttendStage& stage, Workspace& work) {
  return std::make_unique<Attend>(stage, work);
}

CpuStagePtr compile(const MixStage& stage, Workspace& work) {
  return std::make_unique<Mix>(stage, work);
}

} // namespace zmlx::decode
