// SPDX-License-Identifier: MIT
// Stages around the sequence mixers: short convolution, what attention asks
// with, and the projection that adds their result to the residual stream.
#include <utility>

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
    if (!lane.barrier()) {
      return;
    }
    const auto [begin, end] = lane.share_of(dim_, Preparation::kColumns);
    for (int b = 0; b < lane.batch() && begin < end; ++b) {
      const float* gate = lane.work.projected[b] + begin;
      convolve(
          gate,
          gate + dim_,
          gate + 2 * dim_,
          begin,
          end - begin,
          lane.step.layers[layer_].inputs + b * (num_taps_ - 1) * dim_ + begin,
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

CpuStagePtr compile(const MixStage& stage, Workspace& work) {
  return std::make_unique<Mix>(stage, work);
}

} // namespace zmlx::decode
