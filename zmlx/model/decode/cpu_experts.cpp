// SPDX-License-Identifier: MIT
// Stages of the feed-forward layers: router, gate and up of the chosen experts,
// down and their weighted sum.
#include <numeric>

#include "zmlx/kernels/common/vector_math.h"
#include "zmlx/model/decode/cpu_workspace.h"

namespace zmlx::decode {
namespace {

/// Fills the groups: pairs in order of expert, those of one expert in order of
/// sequence.
void group_pairs(Routing& routing) {
  const auto pairs = routing.ids.size();
  routing.order.resize(pairs);
  std::iota(routing.order.begin(), routing.order.end(), 0);
  std::stable_sort(
      routing.order.begin(), routing.order.end(), [&](int a, int b) {
        return routing.ids[a] < routing.ids[b];
      });
  routing.groups.clear();
  for (size_t i = 0; i < pairs; ++i) {
    const int expert = routing.ids[routing.order[i]];
    if (routing.groups.empty() || routing.groups.back().expert != expert) {
      routing.groups.push_back({expert, static_cast<int>(i), 0});
    }
    ++routing.groups.back().count;
  }
}

class Router {
 public:
  Router(const ExpertsStage::Router& router, Workspace& work)
      : matrix(router.weight, work.x),
        spec_(router.spec),
        bias_(data_of(router.bias)) {}

  Range part(const Lane& lane) const {
    return lane.share_of(matrix.view.rows(), 4);
  }

  /// Every thread ends with the same routing.
  void run(Lane& lane) const {
    auto& scores = lane.work.scores;
    const int64_t rows = matrix.view.rows();
    const auto mine = part(lane); // a small matrix: equal parts
    for (int b = 0; b < lane.batch(); ++b) {
      matrix.view.matvec(
          lane.work.x[matrix.pool_index][static_cast<size_t>(b)],
          mine.begin,
          mine.end,
          scores[b] + mine.begin);
    }
    lane.team.barrier();
    for (int b = 0; b < lane.batch(); ++b) {
      moe::route(
          spec_,
          scores[b],
          bias_,
          static_cast<int>(rows),
          lane.routing.ids.data() + b * spec_.top_k,
          lane.routing.weights.data() + b * spec_.top_k);
    }
  }

  Matrix matrix;

 private:
  moe::RouterSpec spec_;
  const float* bias_;
};

class Experts : public CpuStage {
 public:
  Experts(const ExpertsStage& stage, Workspace& work)
      : gate_(stage.gate, work.x),
        up_(stage.up, work.x),
        phase_(work.add_phase()) {
    if (stage.router) {
      router_.emplace(*stage.router, work);
      top_k_ = stage.router->spec.top_k;
      preparation_.emplace(
          &stage.norm,
          std::initializer_list<const Matrix*>{&gate_, &up_, &router_->matrix});
    } else {
      preparation_.emplace(
          &stage.norm, std::initializer_list<const Matrix*>{&gate_, &up_});
    }
    work.top_k = top_k_;
    work.most_top_k = std::max(work.most_top_k, top_k_);
  }

  void reserve(Workspace& work, int batch) const override {
    work.hidden.reserve(batch * top_k_, gate_.view.rows());
    if (router_) {
      work.scores.reserve(batch, router_->matrix.view.rows());
    }
  }
  uint64_t nbytes() const override {
    return static_cast<uint64_t>(top_k_) *
        (gate_.view.nbytes() + up_.view.nbytes()) +
        (router_ ? router_->matrix.view.nbytes() : 0);
  }

  void run(Lane& lane) const override {
    preparation_->run(lane, lane.work.h);
    const auto pairs = static_cast<size_t>(lane.batch() * top_k_);
    lane.routing.ids.assign(pairs, 0);
    lane.routing.weights.assign(pairs, 1.0f);
    if (router_) {
      router_->run(lane);
    }
    group_pairs(lane.routing);
    const auto& groups = lane.routing.groups;
    const Blocks blocks(gate_.view.rows(), lane.team.size());
    const auto group_of = [&](int64_t task) -> const Routing::Group& {
      return groups[static_cast<size_t>(task / blocks.count())];
    };
    lane.tasks(
        phase_,
        static_cast<int64_t>(groups.size()) * blocks.count(),
        [&](int64_t task) {
          return gate_.view.at(group_of(task).expert)
              .ahead(blocks[task % blocks.count()].begin);
        },
        [&](int64_t task, const cpu::RowsAhead& next) {
          hidden_of(lane, group_of(task), blocks[task % blocks.count()], next);
        });
  }
  cpu::RowsAhead first(const Lane& lane) const override {
    if (router_) {
      return router_->matrix.view.ahead(router_->part(lane).begin);
    }
    return gate_.view.ahead(first_row(lane, gate_.view.rows()));
  }

 private:
  void hidden_of(
      Lane& lane,
      const Routing::Group& group,
      Range rows,
      const cpu::RowsAhead& next) const {
    const int64_t count = rows.end - rows.begin;
    float* up = lane.floats(count * group.count);
    std::vector<float*> gate_out, up_out;
    std::vector<int> sequences;
    for (int i = 0; i < group.count; ++i) {
      const int pair = lane.routing.order[group.first + i];
      sequences.push_back(pair / top_k_);
      gate_out.push_back(lane.work.hidden[pair] + rows.begin);
      up_out.push_back(up + i * count);
    }
    auto multiply_by = [&](const Matrix& matrix,
                           std::vector<float*>& out,
                           const cpu::RowsAhead& then) {
      multiply(
          matrix.view.at(group.expert),
          lane.work.x[matrix.pool_index],
          sequences.data(),
          group.count,
          rows,
          out.data(),
          then);
    };
    multiply_by(gate_, gate_out, up_.view.at(group.expert).ahead(rows.begin));
    multiply_by(up_, up_out, next);
    for (int i = 0; i < group.count; ++i) {
      cpu::silu_mul(gate_out[i], up_out[i], gate_out[i], count);
    }
  }

  Matrix gate_, up_;
  std::optional<Router> router_;
  std::optional<Preparation> preparation_;
  int top_k_ = 1;
  int phase_;
};

class Combine : public CpuStage {
 public:
  Combine(const CombineStage& stage, Workspace& work)
      : down_(stage.down, work.hidden_prepared),
        top_k_(work.top_k),
        phase_(work.add_phase()) {}

  void reserve(Workspace&, int) const override {}
  uint64_t nbytes() const override {
    return static_cast<uint64_t>(top_k_) * down_.view.nbytes();
  }

  void run(Lane& lane) const override {
    const auto pairs = static_cast<int64_t>(lane.routing.ids.size());
    prepare(lane, pairs);
    for_each_block(
        lane,
        phase_,
        down_.view.rows(),
        [&](int64_t row) { return ahead(lane, 0, row); },
        [&](Range block, const cpu::RowsAhead& next) {
          combine(lane, pairs, block, next);
        });
  }
  cpu::RowsAhead first(const Lane& lane) const override {
    return ahead(lane, 0, first_row(lane, down_.view.rows()));
  }

 private:
  void prepare(Lane& lane, int64_t pairs) const {
    const int64_t cols = down_.view.cols(), chunks = (cols + 127) / 128;
    auto& prepared = lane.work.hidden_prepared[down_.pool_index];
    const auto mine = lane.share_of(pairs * chunks, 1);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t pair = i / chunks, begin = i % chunks * 128;
      prepared[static_cast<size_t>(pair)].prepare_part(
          lane.work.hidden[pair], begin, std::min(cols, begin + 128));
    }
    lane.team.barrier();
  }

  cpu::RowsAhead ahead(const Lane& lane, size_t group, int64_t row) const {
    return down_.view.at(lane.routing.groups[group].expert).ahead(row);
  }

  void combine(
      Lane& lane,
      int64_t pairs,
      Range rows,
      const cpu::RowsAhead& next) const {
    const int64_t count = rows.end - rows.begin;
    float* parts = lane.floats(count * (pairs + 1));
    const auto& routing = lane.routing;
    std::vector<float*> out;
    for (size_t g = 0; g < routing.groups.size(); ++g) {
      const auto& group = routing.groups[g];
      const int* order = routing.order.data() + group.first;
      out.clear();
      for (int i = 0; i < group.count; ++i) {
        out.push_back(parts + order[i] * count);
      }
      multiply(
          down_.view.at(group.expert),
          lane.work.hidden_prepared[down_.pool_index],
          order,
          group.count,
          rows,
          out.data(),
          g + 1 < routing.groups.size() ? ahead(lane, g + 1, rows.begin)
                                        : next);
    }
    // A sequence's experts in the router's order, whatever the groups.
    float* sum = parts + pairs * count;
    for (int b = 0; b < lane.batch(); ++b) {
      std::fill(sum, sum + count, 0.0f);
      for (int pair = b * top_k_; pair < (b + 1) * top_k_; ++pair) {
        cpu::axpy(routing.weights[pair], parts + pair * count, sum, count);
      }
      cpu::axpy(1, sum, lane.work.h[b] + rows.begin, count);
    }
  }

  Matrix down_;
  int top_k_;
  int phase_;
};

} // namespace

CpuStagePtr compile(const ExpertsStage& stage, Workspace& work) {
  return std::make_unique<Experts>(stage, work);
}

CpuStagePtr compile(const CombineStage& stage, Workspace& work) {
  return std::make_unique<Combine>(stage, work);
}

} // namespace zmlx::decode
