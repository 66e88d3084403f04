// SPDX-License-Identifier: MIT
// The first and the last stage: a row of the embedding, and the output head.
#include <cmath>

#include "zmlx/model/decode/cpu_workspace.h"

namespace zmlx::decode {
namespace {

class Embed : public CpuStage {
 public:
  explicit Embed(const EmbedStage& stage) : table_(stage.table) {}

  void reserve(Workspace& work, int batch) const override {
    work.h.reserve(batch, table_.cols());
    work.normed.reserve(batch, table_.cols());
  }
  uint64_t nbytes() const override {
    return table_.nbytes() / static_cast<uint64_t>(table_.rows());
  }
  uint64_t read_nbytes(const Lane& lane) const override {
    return nbytes() * static_cast<uint64_t>(lane.batch());
  }

  void run(Lane& lane) const override {
    const auto mine = lane.share_of(lane.batch(), 1);
    for (int64_t b = mine.begin; b < mine.end; ++b) {
      // Negative ids count from the end, as in mx::take; what is outside gives
      // NaN logits rather than another token's.
      int64_t id = lane.step.tokens[b];
      id += id < 0 ? table_.rows() : 0;
      if (id >= 0 && id < table_.rows()) {
        table_.copy_row(id, lane.work.h[b]);
      } else {
        std::fill_n(lane.work.h[b], table_.cols(), NAN);
      }
    }
    lane.stream.start(lane.after());
  }
  cpu::RowsAhead first(const Lane&) const override {
    return {};
  }

 private:
  MatrixView table_;
};

class Head : public CpuStage {
 public:
  Head(const HeadStage& stage, Workspace& work)
      : out_(stage.out.weight, work.x),
        bias_(data_of(stage.out.bias)),
        preparation_(&stage.norm, {&out_}),
        phase_(work.add_phase()) {}

  void reserve(Workspace&, int) const override {}
  uint64_t nbytes() const override {
    return out_.view.nbytes();
  }

  void run(Lane& lane) const override {
    preparation_.run(lane, lane.work.h);
    for_each_block(
        lane,
        phase_,
        out_.view.rows(),
        [&](int64_t row) { return out_.view.ahead(row); },
        [&](Range block, const cpu::RowsAhead& next) {
          logits(lane, block, next);
        });
  }
  cpu::RowsAhead first(const Lane& lane) const override {
    return out_.view.ahead(own_rows(lane, out_.view.rows()));
  }

 private:
  void logits(Lane& lane, Range rows, const cpu::RowsAhead& next) const {
    lane.outputs.clear();
    for (int b = 0; b < lane.batch(); ++b) {
      lane.outputs.push_back(
          lane.step.logits + b * out_.view.rows() + rows.begin);
    }
    multiply(
        lane, out_.view, lane.work.x[out_.pool_index], nullptr, rows, next);
    for (int64_t row = rows.begin; bias_ && row < rows.end; ++row) {
      for (float* values : lane.outputs) {
        values[row - rows.begin] += bias_[row];
      }
    }
    if (lane.batch() == 1) {
      look_for_likeliest(lane, rows);
    }
  }

  static void look_for_likeliest(Lane& lane, Range rows) {
    const float* logits = lane.outputs[0];
    Likeliest& best = lane.work.likeliest[static_cast<size_t>(lane.thread)];
    const float* most =
        std::max_element(logits, logits + rows.end - rows.begin);
    if (*most > best.logit) {
      best = {*most, static_cast<int32_t>(rows.begin + (most - logits))};
    }
  }

  Matrix out_;
  const float* bias_;
  Preparation preparation_;
  int phase_;
};

} // namespace

CpuStagePtr compile(const EmbedStage& stage, Workspace&) {
  return std::make_unique<Embed>(stage);
}

CpuStagePtr compile(const HeadStage& stage, Workspace& work) {
  return std::make_unique<Head>(stage, work);
}

} // namespace zmlx::decode
