// SPDX-License-Identifier: MIT
// Stages around the sequence mixers: short convolution, attention, and the
// projection that adds their result to the residual stream.
#include <cmath>
#include <cstring>

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
    const To& to) {
  std::vector<float*> out;
  for (int b = 0; b < lane.batch(); ++b) {
    out.push_back(to(b) + rows.begin);
  }
  multiply(
      matrix.view,
      lane.work.x[matrix.pool_index],
      nullptr,
      lane.batch(),
      rows,
      out.data());
  for (int b = 0; bias && b < lane.batch(); ++b) {
    cpu::axpy(1, bias + rows.begin, out[b], rows.end - rows.begin);
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
        phase_(work.add_phase()) {}

  void reserve(Workspace& work, int batch) const override {
    work.mixed.reserve(batch, dim_);
  }
  uint64_t nbytes() const override {
    return in_.view.nbytes();
  }

  void run(Lane& lane) const override {
    preparation_.run(lane, lane.work.h);
    const int64_t step = rows_a_task(dim_, lane.team.size());
    lane.tasks(phase_, (dim_ + step - 1) / step, [&](int64_t task) {
      channels(lane, {task * step, std::min(dim_, (task + 1) * step)});
    });
  }

 private:
  // The three thirds of the projection for some channels, then those channels'
  // convolution.
  void channels(Lane& lane, Range range) const {
    const int64_t count = range.end - range.begin;
    const int batch = lane.batch();
    float* parts = lane.floats(3 * count * batch);
    for (int third = 0; third < 3; ++third) {
      const int64_t row = third * dim_ + range.begin;
      project(lane, in_, in_bias_, {row, row + count}, [&](int b) {
        return parts + (third * batch + b) * count - row;
      });
    }
    for (int b = 0; b < batch; ++b) {
      const float* gate = parts + b * count;
      const float* scale = parts + (batch + b) * count;
      const float* x = parts + (2 * batch + b) * count;
      float* inputs = lane.work.step.layers[layer_].inputs +
          b * (num_taps_ - 1) * dim_ + range.begin;
      float* y = lane.work.mixed[b] + range.begin;
      convolve(gate, scale, x, range.begin, count, inputs, y);
    }
  }

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
    work.queries.reserve(batch, parts_[0].matrix.view.rows);
    work.keys.reserve(batch, parts_[1].matrix.view.rows);
    work.values.reserve(batch, parts_[2].matrix.view.rows);
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
    int64_t total = 0;
    for (const auto& part : parts_) {
      total += part.matrix.view.rows;
    }
    const int64_t step = rows_a_task(total, lane.team.size());
    lane.tasks(phase_, (total + step - 1) / step, [&](int64_t task) {
      // Rows of the three matrices one after the other.
      int64_t begin = task * step;
      const int64_t end = std::min(total, begin + step);
      int64_t first = 0;
      for (int i = 0; i < 3; ++i) {
        const int64_t rows = parts_[i].matrix.view.rows;
        const Range mine = {
            std::max(begin, first) - first,
            std::min(end, first + rows) - first};
        if (mine.begin < mine.end) {
          project(lane, parts_[i].matrix, parts_[i].bias, mine, [&](int b) {
            return (*out[i])[b];
          });
        }
        first += rows;
      }
    });
  }

 private:
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
        query_norm_(stage.query_norm.data<float>()),
        key_norm_(stage.key_norm.data<float>()),
        layer_(static_cast<size_t>(stage.layer)),
        rotation_(
            static_cast<size_t>(
                work.add_rotation(spec_.rope_theta, spec_.head_dim))),
        phase_(work.add_phase()) {}

  void reserve(Workspace& work, int batch) const override {
    work.mixed.reserve(batch, int64_t{spec_.heads} * spec_.head_dim);
  }
  uint64_t nbytes() const override {
    return 0;
  }

  void run(Lane& lane) const override {
    const int heads = spec_.kv_heads;
    lane.tasks(phase_, int64_t{lane.batch()} * heads, [&](int64_t task) {
      one_head(
          lane, static_cast<int>(task / heads), static_cast<int>(task % heads));
    });
  }

 private:
  void norm_and_rotate(
      const Rotation& rotation,
      const float* x,
      const float* weight,
      float* out) const {
    const int dim = spec_.head_dim, half = dim / 2;
    const float mean = cpu::dot(x, x, dim) / static_cast<float>(dim);
    cpu::scale_mul(
        x, 1.0f / std::sqrt(mean + spec_.norm_eps), weight, out, dim);
    for (int i = 0; i < half; ++i) {
      const float a = out[i], b = out[i + half];
      out[i] = a * rotation.cosines[i] - b * rotation.sines[i];
      out[i + half] = a * rotation.sines[i] + b * rotation.cosines[i];
    }
  }

  // Appends the key and value of one head, then attends with its queries.
  void one_head(Lane& lane, int b, int kv_head) const {
    const int dim = spec_.head_dim, group = spec_.heads / spec_.kv_heads;
    const LayerState& state = lane.work.step.layers[layer_];
    const Rotation& rotation = lane.work.rotations[rotation_];
    const int64_t first =
        (int64_t{b} * spec_.kv_heads + kv_head) * state.capacity * dim;
    float* keys = state.keys + first;
    float* values = state.values + first;
    const int64_t position = lane.work.step.position;
    norm_and_rotate(
        rotation,
        lane.work.keys[b] + kv_head * dim,
        key_norm_,
        keys + position * dim);
    std::memcpy(
        values + position * dim,
        lane.work.values[b] + kv_head * dim,
        sizeof(float) * static_cast<size_t>(dim));
    // All queries of the head at once, so that the cache is read once.
    const int64_t seen = position + 1, chunks = cpu::attention_chunks(seen);
    const int64_t stride = cpu::partial_size(group, dim);
    float* queries = lane.floats(int64_t{group} * dim + chunks * stride);
    float* partials = queries + int64_t{group} * dim;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    for (int i = 0; i < group; ++i) {
      float* query = queries + i * dim;
      norm_and_rotate(
          rotation,
          lane.work.queries[b] + (kv_head * group + i) * dim,
          query_norm_,
          query);
      for (int j = 0; j < dim; ++j) {
        query[j] *= scale;
      }
    }
    cpu::CachedHead head;
    head.keys.floats = keys;
    head.values.floats = values;
    head.head_dim = dim;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      cpu::attend_chunk(
          head, queries, group, chunk, seen, partials + chunk * stride);
    }
    cpu::merge_chunks(
        partials,
        stride,
        chunks,
        group,
        dim,
        lane.work.mixed[b] + int64_t{kv_head} * group * dim);
  }

  attention::Spec spec_;
  const float *query_norm_, *key_norm_;
  size_t layer_, rotation_;
  int phase_;
};

class Mix : public CpuStage {
 public:
  Mix(const MixStage& stage, Workspace& work)
      : out_(stage.out.weight, work.x),
        bias_(data_of(stage.out.bias)),
        preparation_(nullptr, {&out_}),
        phase_(work.add_phase()) {}

  void reserve(Workspace&, int) const override {}
  uint64_t nbytes() const override {
    return out_.view.nbytes();
  }

  void run(Lane& lane) const override {
    preparation_.run(lane, lane.work.mixed);
    const int64_t rows = out_.view.rows;
    const int64_t step = rows_a_task(rows, lane.team.size());
    lane.tasks(phase_, (rows + step - 1) / step, [&](int64_t task) {
      const Range mine = {task * step, std::min(rows, (task + 1) * step)};
      const int64_t count = mine.end - mine.begin;
      float* parts = lane.floats(count * lane.batch());
      project(lane, out_, bias_, mine, [&](int b) {
        return parts + b * count - mine.begin;
      });
      for (int b = 0; b < lane.batch(); ++b) {
        cpu::axpy(1, parts + b * count, lane.work.h[b] + mine.begin, count);
      }
    });
  }

 private:
  Matrix out_;
  const float* bias_;
  Preparation preparation_;
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
