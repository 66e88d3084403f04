// SPDX-License-Identifier: MIT
// Stages of the feed-forward layers: router, gate and up of the chosen experts,
// down and their weighted sum.
#include <numeric>
#include <utility>

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
  std::sort(routing.order.begin(), routing.order.end(), [&](int a, int b) {
    return std::pair(routing.ids[a], a) < std::pair(routing.ids[b], b);
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
    const int64_t rows = matrix.view.rows();
    return shared(lane) ? lane.share_of(rows, cpu::kBlockRows) : Range{0, rows};
  }

  /// Every thread ends with the same routing.
  void run(Lane& lane) const {
    const auto rows = static_cast<int>(matrix.view.rows());
    float* own = shared(lane) ? nullptr : lane.floats(lane.batch() * rows);
    const auto scores = [&](int b) {
      return own ? own + b * rows : lane.work.scores[b];
    };
    const auto mine = part(lane); // a small matrix: equal parts
    lane.outputs.clear();
    for (int b = 0; b < lane.batch(); ++b) {
      lane.outputs.push_back(scores(b) + mine.begin);
    }
    if (mine.begin < mine.end) {
      multiply(
          lane, matrix.view, lane.work.x[matrix.pool_index], nullptr, mine, {});
    }
    if (!own) {
      lane.barrier();
    }
    for (int b = 0; b < lane.batch(); ++b) {
      moe::route(
          spec_,
          scores(b),
          bias_,
          rows,
          lane.routing.ids.data() + b * spec_.top_k,
          lane.routing.weights.data() + b * spec_.top_k);
    }
  }

  Matrix matrix;

 private:
  // Where there is no block for each thread, all of them take the whole: some
  // would wait for the others' otherwise.
  bool shared(const Lane& lane) const {
    return matrix.view.rows() >= lane.team.size() * cpu::kBlockRows;
  }

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
    work.up.reserve(batch * top_k_, gate_.view.rows());
    if (router_) {
      work.scores.reserve(batch, router_->matrix.view.rows());
    }
  }
  uint64_t nbytes() const override {
    return nbytes_of(static_cast<uint64_t>(top_k_));
  }
  uint64_t read_nbytes(const Lane& lane) const override {
    return nbytes_of(lane.routing.groups.size());
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
    // Each expert's gate from its first row to its last, then its up.
    const Blocks blocks{gate_.view.rows()};
    const auto of = [&](int64_t task) {
      const int64_t matrix = task / blocks.count();
      return Part{
          lane.routing.groups[static_cast<size_t>(matrix / 2)],
          matrix % 2 == 0 ? gate_ : up_,
          matrix % 2 == 0 ? lane.work.hidden : lane.work.up,
          blocks[task % blocks.count()]};
    };
    lane.tasks(
        phase_,
        static_cast<int64_t>(lane.routing.groups.size()) * 2 * blocks.count(),
        [&](int64_t task) {
          const Part part = of(task);
          return part.matrix.view.at(part.group.expert).ahead(part.rows.begin);
        },
        [&](int64_t task, const cpu::RowsAhead& next) {
          compute(lane, of(task), next);
        });
  }
  cpu::RowsAhead first(const Lane& lane) const override {
    if (router_) {
      return router_->matrix.view.ahead(router_->part(lane));
    }
    const int64_t rows = gate_.view.rows();
    const auto mine = own_rows(lane, 2 * rows); // of gate and up as one
    return mine.begin < rows
        ? gate_.view.ahead(Range{mine.begin, std::min(mine.end, rows)})
        : up_.view.ahead(Range{mine.begin - rows, mine.end - rows});
  }

 private:
  uint64_t nbytes_of(uint64_t experts) const {
    return experts * (gate_.view.nbytes() + up_.view.nbytes()) +
        (router_ ? router_->matrix.view.nbytes() : 0);
  }

  /// Some rows of gate or up of an expert, for its sequences.
  struct Part {
    const Routing::Group& group;
    const Matrix& matrix;
    Rows& out;
    Range rows;
  };

  void compute(Lane& lane, const Part& part, const cpu::RowsAhead& next) const {
    lane.sequences.clear();
    lane.outputs.clear();
    for (int i = 0; i < part.group.count; ++i) {
      const int pair = lane.routing.order[part.group.first + i];
      lane.sequences.push_back(pair / top_k_);
      lane.outputs.push_back(part.out[pair] + part.rows.begin);
    }
    multiply(
        lane,
        part.matrix.view.at(part.group.expert),
        lane.work.x[part.matrix.pool_index],
        lane.sequences.data(),
        part.rows,
        next);
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

  void reserve(Workspace& work, int batch) const override {
    work.outputs.reserve(batch * top_k_, down_.view.rows());
  }
  uint64_t nbytes() const override {
    return static_cast<uint64_t>(top_k_) * down_.view.nbytes();
  }
  uint64_t read_nbytes(const Lane& lane) const override {
    return lane.routing.groups.size() * down_.view.nbytes();
  }

  void run(Lane& lane) const override {
    const auto pairs = static_cast<int64_t>(lane.routing.ids.size());
    prepare(lane, pairs);
    const auto& groups = lane.routing.groups;
    const Blocks blocks{down_.view.rows()};
    const auto group_of = [&](int64_t task) {
      return static_cast<size_t>(task / blocks.count());
    };
    lane.tasks(
        phase_,
        static_cast<int64_t>(groups.size()) * blocks.count(),
        [&](int64_t task) {
          return matrix_of(lane, group_of(task))
              .ahead(blocks[task % blocks.count()].begin);
        },
        [&](int64_t task, const cpu::RowsAhead& next) {
          compute(
              lane,
              groups[group_of(task)],
              blocks[task % blocks.count()],
              next);
        });
    lane.barrier();
    sum(lane);
  }
  cpu::RowsAhead first(const Lane& lane) const override {
    const Blocks blocks{down_.view.rows()};
    const auto count =
        static_cast<int64_t>(lane.routing.groups.size()) * blocks.count();
    const auto mine = lane.share_of_tasks(count);
    if (mine.begin == mine.end) {
      return {};
    }
    const auto group = static_cast<size_t>(mine.begin / blocks.count());
    const int64_t before = static_cast<int64_t>(group) * blocks.count();
    return matrix_of(lane, group)
        .ahead(
            Range{
                blocks[mine.begin - before].begin,
                blocks[mine.end - before].begin});
  }

 private:
  void prepare(Lane& lane, int64_t pairs) const {
    constexpr int64_t kColumns = Preparation::kColumns;
    const int64_t cols = down_.view.cols();
    const int64_t chunks = (cols + kColumns - 1) / kColumns;
    auto& prepared = lane.work.hidden_prepared[down_.pool_index];
    const auto mine = lane.share_of(pairs * chunks, 1);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t pair = i / chunks, begin = i % chunks * kColumns;
      const int64_t end = std::min(cols, begin + kColumns);
      float* hidden = lane.work.hidden[pair];
      cpu::silu_mul(
          hidden + begin,
          lane.work.up[pair] + begin,
          hidden + begin,
          end - begin);
      prepared[static_cast<size_t>(pair)].prepare_part(hidden, begin, end);
      lane.stream.ask(kLinesAPart);
    }
    lane.barrier();
  }

  MatrixView matrix_of(const Lane& lane, size_t group) const {
    return down_.view.at(lane.routing.groups[group].expert);
  }

  // Some rows of an expert's down, for its pairs.
  void compute(
      Lane& lane,
      const Routing::Group& group,
      Range rows,
      const cpu::RowsAhead& next) const {
    const int* order = lane.routing.order.data() + group.first;
    lane.outputs.clear();
    for (int i = 0; i < group.count; ++i) {
      lane.outputs.push_back(lane.work.outputs[order[i]] + rows.begin);
    }
    multiply(
        lane,
        down_.view.at(group.expert),
        lane.work.hidden_prepared[down_.pool_index],
        order,
        rows,
        next);
  }

  // A sequence's experts in the router's order, whatever the groups.
  void sum(Lane& lane) const {
    const auto [begin, end] = lane.share_of(down_.view.rows(), 16);
    float* total = lane.floats(end - begin);
    for (int b = 0; b < lane.batch(); ++b) {
      std::fill(total, total + (end - begin), 0.0f);
      for (int pair = b * top_k_; pair < (b + 1) * top_k_; ++pair) {
        cpu::axpy(
            lane.routing.weights[pair],
            lane.work.outputs[pair] + begin,
            total,
            end - begin);
      }
      cpu::axpy(1, total, lane.work.h[b] + begin, end - begin);
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
