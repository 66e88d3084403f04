// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/gated_experts.h"

#include <algorithm>
#include <atomic>

#include "zmlx/kernels/common/gemm.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/kernels/common/vector_math.h"

namespace zmlx::cpu {
namespace {

// Rows of gate and up that one task computes: whole chunks of the prepared
// vector that down reads.
constexpr int64_t kRowsATask = 128;

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
        experts.hidden(),
        experts.down.bits,
        experts.down.group_size,
        experts.down.in_blocks);
  }
  const int64_t tasks =
      (experts.hidden() + kRowsATask - 1) / kRowsATask * routes.top_k;
  for (size_t t = 0; t < x.size(); ++t) {
    const auto token = static_cast<int64_t>(t);
    scratch.x.prepare(x[t], experts.gate);
    team.run([&](int thread) {
      const auto mine = share(tasks, 1, thread, team.size());
      for (int64_t task = mine.begin; task < mine.end; ++task) {
        token_hidden(experts, routes, token, task, scratch);
      }
      team.barrier();
      const auto rows = share(experts.dim(), kBlockRows, thread, team.size());
      token_down(experts, routes, token, rows, scratch, y[t]);
    });
  }
}

/// The tokens of one expert.
struct Group {
  std::vector<const float*> x;
  std::vector<float*> hidden; // their rows of hidden values
  std::vector<float*> y;
  std::vector<float> weights;
  PreparedRows inputs, hidden_inputs;

  int64_t count() const {
    return static_cast<int64_t>(x.size());
  }
};

void group_hidden(
    const GatedExperts& experts,
    const Group& group,
    int e,
    Range r,
    std::vector<float>& up) {
  const int64_t rows = r.end - r.begin;
  up.resize(static_cast<size_t>(group.count() * rows));
  std::vector<float*> gate_out, up_out;
  for (int64_t i = 0; i < group.count(); ++i) {
    gate_out.push_back(group.hidden[i] + r.begin);
    up_out.push_back(up.data() + i * rows);
  }
  gemm(experts.gate.at(e), r.begin, r.end, group.inputs, gate_out.data());
  gemm(experts.up.at(e), r.begin, r.end, group.inputs, up_out.data());
  for (int64_t i = 0; i < group.count(); ++i) {
    silu_mul(gate_out[i], up_out[i], gate_out[i], rows);
  }
}

void group_down(
    const GatedExperts& experts,
    const Group& group,
    int e,
    Range r,
    std::vector<float>& part) {
  const int64_t rows = r.end - r.begin;
  part.resize(static_cast<size_t>(group.count() * rows));
  std::vector<float*> out;
  for (int64_t i = 0; i < group.count(); ++i) {
    out.push_back(part.data() + i * rows);
  }
  gemm(experts.down.at(e), r.begin, r.end, group.hidden_inputs, out.data());
  for (int64_t i = 0; i < group.count(); ++i) {
    axpy(group.weights[i], out[i], group.y[i] + r.begin, rows);
  }
}

/// Hands out the parts of all groups in order, to every thread of the team.
class Parts {
 public:
  /// step(e, part) for part = 0 .. parts(group) - 1 of each group.
  template <class Count, class Step>
  void run(std::vector<Group>& groups, const Count& parts, const Step& step) {
    int64_t first = 0, task = next_++;
    for (size_t e = 0; e < groups.size(); ++e) {
      const int64_t count = groups[e].x.empty() ? 0 : parts(groups[e]);
      for (; task < first + count; task = next_++) {
        step(static_cast<int>(e), task - first);
      }
      first += count;
    }
  }

 private:
  std::atomic<int64_t> next_{0};
};

/// Fills groups; hidden: (pairs, experts.hidden()).
void group_tokens(
    const GatedExperts& experts,
    const Routes& routes,
    const std::vector<const float*>& x,
    const std::vector<float*>& y,
    float* hidden,
    std::vector<Group>& groups) {
  groups.resize(static_cast<size_t>(routes.experts));
  for (Group& group : groups) {
    group.x.clear();
    group.hidden.clear();
    group.y.clear();
    group.weights.clear();
  }
  const auto pairs = static_cast<int64_t>(x.size()) * routes.top_k;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    Group& group = groups[routes.ids[pair]];
    const int64_t token = pair / routes.top_k;
    group.x.push_back(x[token]);
    group.hidden.push_back(hidden + pair * experts.hidden());
    group.y.push_back(y[token]);
    group.weights.push_back(routes.weights[pair]);
  }
  for (Group& group : groups) {
    group.inputs.reserve(experts.gate, group.x.data(), group.count());
    group.hidden_inputs.reserve(
        experts.down, group.hidden.data(), group.count());
  }
}

Range rows_of(int64_t part, int64_t rows) {
  return {part * kGemmRows, std::min(rows, (part + 1) * kGemmRows)};
}

void many_tokens(
    ThreadTeam& team,
    const GatedExperts& experts,
    const Routes& routes,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  // Kept from call to call, and the caller's on every thread.
  static thread_local std::vector<Group> own_groups;
  static thread_local std::vector<float> own_hidden;
  auto& groups = own_groups;
  own_hidden.resize(
      x.size() * static_cast<size_t>(routes.top_k * experts.hidden()));
  group_tokens(experts, routes, x, y, own_hidden.data(), groups);
  Parts inputs, hidden, hidden_inputs;
  std::atomic<int64_t> next_down{0};
  team.run([&](int) {
    std::vector<float> scratch;
    inputs.run(
        groups,
        [](const Group& group) { return group.inputs.tiles(); },
        [&](int e, int64_t part) { groups[e].inputs.prepare_tile(part); });
    team.barrier();
    hidden.run(
        groups,
        [&](const Group&) {
          return (experts.hidden() + kGemmRows - 1) / kGemmRows;
        },
        [&](int e, int64_t part) {
          const Range rows = rows_of(part, experts.hidden());
          group_hidden(experts, groups[e], e, rows, scratch);
        });
    team.barrier();
    hidden_inputs.run(
        groups,
        [](const Group& group) { return group.hidden_inputs.tiles(); },
        [&](int e, int64_t part) {
          groups[e].hidden_inputs.prepare_tile(part);
        });
    team.barrier();
    for (int64_t part; (part = next_down++) * kGemmRows < experts.dim();) {
      const Range rows = rows_of(part, experts.dim());
      for (float* out : y) {
        std::fill(out + rows.begin, out + rows.end, 0.0f);
      }
      // Experts in order, so that a token's sum does not depend on threads.
      for (int e = 0; e < routes.experts; ++e) {
        if (!groups[e].x.empty()) {
          group_down(experts, groups[e], e, rows, scratch);
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
