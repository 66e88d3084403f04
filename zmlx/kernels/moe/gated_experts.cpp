// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/gated_experts.h"

#include <algorithm>
#include <memory>

#include "zmlx/kernels/common/gemm.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/kernels/common/vector_math.h"

namespace zmlx::cpu {
namespace {

// Rows of gate and up that one task computes: whole chunks of the prepared
// vector that down reads.
constexpr int64_t kRowsATask = 128;
constexpr int64_t kRowsAGemm = 64;

/// Buffers of the calling thread, kept from call to call.
struct Scratch {
  PreparedVector x;
  std::vector<PreparedVector> hidden; // one an expert of the token
  std::vector<float> values; // (top_k, hidden)
};

void token_hidden(
    const GatedExperts& experts,
    const Routes& routes,
    int64_t token,
    int64_t task,
    Scratch& scratch) {
  const int64_t hidden = experts.hidden();
  const int64_t tasks = (hidden + kRowsATask - 1) / kRowsATask;
  const int64_t slot = task / tasks, begin = task % tasks * kRowsATask;
  const int64_t end = std::min(hidden, begin + kRowsATask);
  const int id = routes.ids[token * routes.top_k + slot];
  float up[kRowsATask];
  float* gate = scratch.values.data() + slot * hidden;
  matvec(experts.gate.at(id), scratch.x, begin, end, gate + begin);
  matvec(experts.up.at(id), scratch.x, begin, end, up);
  silu_mul(gate + begin, up, gate + begin, end - begin);
  scratch.hidden[slot].prepare_part(gate, begin, end);
}

void token_down(
    const GatedExperts& experts,
    const Routes& routes,
    int64_t token,
    Range rows,
    const Scratch& scratch,
    float* y) {
  float part[kRowsATask];
  for (int64_t begin = rows.begin; begin < rows.end; begin += kRowsATask) {
    const int64_t end = std::min(rows.end, begin + kRowsATask);
    std::fill(y + begin, y + end, 0.0f);
    for (int slot = 0; slot < routes.top_k; ++slot) {
      const int64_t pair = token * routes.top_k + slot;
      matvec(
          experts.down.at(routes.ids[pair]),
          scratch.hidden[slot],
          begin,
          end,
          part);
      axpy(routes.weights[pair], part, y + begin, end - begin);
    }
  }
}

void few_tokens(
    ThreadTeam& team,
    const GatedExperts& experts,
    const Routes& routes,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  static thread_local Scratch own;
  Scratch& scratch = own; // the caller's, on every thread
  const auto slots = static_cast<size_t>(routes.top_k);
  scratch.hidden.resize(std::max(scratch.hidden.size(), slots));
  scratch.values.resize(slots * static_cast<size_t>(experts.hidden()));
  for (size_t slot = 0; slot < slots; ++slot) {
    scratch.hidden[slot].reserve(
        experts.hidden(), experts.down.bits, experts.down.group_size);
  }
  const int64_t tasks =
      (experts.hidden() + kRowsATask - 1) / kRowsATask * routes.top_k;
  for (size_t t = 0; t < x.size(); ++t) {
    const auto token = static_cast<int64_t>(t);
    scratch.x.prepare(
        x[t], experts.dim(), experts.gate.bits, experts.gate.group_size);
    team.run([&](int thread) {
      const auto mine = share(tasks, 1, thread, team.size());
      for (int64_t task = mine.begin; task < mine.end; ++task) {
        token_hidden(experts, routes, token, task, scratch);
      }
      team.barrier();
      const auto rows = share(experts.dim(), 16, thread, team.size());
      token_down(experts, routes, token, rows, scratch, y[t]);
    });
  }
}

/// Tokens grouped by expert.
struct Group {
  std::vector<const float*> x; // inputs of the expert's tokens
  std::vector<float*> hidden; // their rows of hidden values
  std::vector<float*> y;
  std::vector<float> weights;
};

void group_hidden(const GatedExperts& experts, Group& group, int e, Range r) {
  const auto count = static_cast<int64_t>(group.x.size());
  const int64_t rows = r.end - r.begin;
  std::vector<float> up(static_cast<size_t>(count * rows));
  std::vector<float*> gate_out, up_out;
  for (int64_t i = 0; i < count; ++i) {
    gate_out.push_back(group.hidden[i] + r.begin);
    up_out.push_back(up.data() + i * rows);
  }
  gemm(
      experts.gate.at(e),
      r.begin,
      r.end,
      group.x.data(),
      count,
      gate_out.data());
  gemm(experts.up.at(e), r.begin, r.end, group.x.data(), count, up_out.data());
  for (int64_t i = 0; i < count; ++i) {
    silu_mul(gate_out[i], up_out[i], gate_out[i], rows);
  }
}

void group_down(const GatedExperts& experts, Group& group, int e, Range r) {
  const auto count = static_cast<int64_t>(group.x.size());
  const int64_t rows = r.end - r.begin;
  std::vector<float> part(static_cast<size_t>(count * rows));
  std::vector<float*> out;
  for (int64_t i = 0; i < count; ++i) {
    out.push_back(part.data() + i * rows);
  }
  gemm(
      experts.down.at(e),
      r.begin,
      r.end,
      group.hidden.data(),
      count,
      out.data());
  for (int64_t i = 0; i < count; ++i) {
    axpy(group.weights[i], out[i], group.y[i] + r.begin, rows);
  }
}

void many_tokens(
    ThreadTeam& team,
    const GatedExperts& experts,
    const Routes& routes,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  std::vector<Group> groups(static_cast<size_t>(routes.experts));
  const auto pairs = static_cast<int64_t>(x.size()) * routes.top_k;
  // Not a vector: zeroing it would cost a pass over memory.
  const std::unique_ptr<float[]> hidden(
      new float[static_cast<size_t>(pairs * experts.hidden())]);
  for (int64_t pair = 0; pair < pairs; ++pair) {
    Group& group = groups[routes.ids[pair]];
    const int64_t token = pair / routes.top_k;
    group.x.push_back(x[token]);
    group.hidden.push_back(hidden.get() + pair * experts.hidden());
    group.y.push_back(y[token]);
    group.weights.push_back(routes.weights[pair]);
  }
  const int64_t hidden_tasks = (experts.hidden() + kRowsAGemm - 1) / kRowsAGemm;
  const int64_t down_tasks = (experts.dim() + kRowsAGemm - 1) / kRowsAGemm;
  std::atomic<int64_t> next_hidden{0}, next_down{0};
  auto rows_of = [](int64_t task, int64_t rows) {
    return Range{task * kRowsAGemm, std::min(rows, (task + 1) * kRowsAGemm)};
  };
  team.run([&](int) {
    for (;;) {
      const int64_t task = next_hidden++;
      const int64_t e = task / hidden_tasks;
      if (e >= routes.experts) {
        break;
      }
      if (!groups[e].x.empty()) {
        group_hidden(
            experts,
            groups[e],
            static_cast<int>(e),
            rows_of(task % hidden_tasks, experts.hidden()));
      }
    }
    team.barrier();
    for (int64_t task; (task = next_down++) < down_tasks;) {
      const Range rows = rows_of(task, experts.dim());
      for (float* out : y) {
        std::fill(out + rows.begin, out + rows.end, 0.0f);
      }
      // Experts in order, so that a token's sum does not depend on threads.
      for (int e = 0; e < routes.experts; ++e) {
        if (!groups[e].x.empty()) {
          group_down(experts, groups[e], e, rows);
        }
      }
    }
  });
}

} // namespace

void gated_experts(
    ThreadTeam& team,
    const GatedExperts& experts,
    const Routes& routes,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  if (static_cast<int64_t>(x.size()) < kGemmVectors) {
    few_tokens(team, experts, routes, x, y);
  } else {
    many_tokens(team, experts, routes, x, y);
  }
}

} // namespace zmlx::cpu
