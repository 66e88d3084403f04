// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/experts.h"

#include <algorithm>
#include <atomic>

#include "zmlx/kernels/common/dense.h"
#include "zmlx/kernels/common/gemm.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/kernels/common/vector_math.h"

namespace zmlx::cpu {
namespace {

// Rows of gate and up that one task computes: whole chunks of the prepared
// vector that down reads.
constexpr int64_t kRowsATask = 128;

/// Whether a vector prepared for one matrix serves the other.
bool same_format(const ExpertMatrix& a, const ExpertMatrix& b) {
  const auto* p = std::get_if<PackedMatrix>(&a.weight);
  const auto* q = std::get_if<PackedMatrix>(&b.weight);
  return p && q ? p->bits == q->bits && p->group_size == q->group_size &&
          p->scheme == q->scheme
                : !p && !q;
}

void reserve(PreparedVector& vector, const ExpertMatrix& matrix) {
  if (const auto* packed = std::get_if<PackedMatrix>(&matrix.weight)) {
    vector.reserve(packed->cols, packed->bits, packed->group_size);
  } else {
    vector.reserve(matrix.cols());
  }
}

void add_bias(
    const ExpertMatrix& matrix,
    int id,
    int64_t begin,
    int64_t end,
    float* y) {
  if (matrix.bias.values) {
    std::vector<float> bias(static_cast<size_t>(matrix.bias.cols));
    copy_row(matrix.bias, id, bias.data());
    axpy(1.0f, bias.data() + begin, y, end - begin);
  }
}

/// y[row - begin] of expert id for rows [begin, end), bias included.
void multiply(
    const ExpertMatrix& matrix,
    int id,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y) {
  if (const auto* packed = std::get_if<PackedMatrix>(&matrix.weight)) {
    matvec(packed->at(id), x, begin, end, y);
  } else {
    matvec(
        std::get<DenseMatrix>(matrix.weight).at(id), x.values(), begin, end, y);
  }
  add_bias(matrix, id, begin, end, y);
}

/// The same for many vectors.
void multiply(
    const ExpertMatrix& matrix,
    int id,
    const PreparedRows& x,
    Range rows,
    const std::vector<float*>& y) {
  std::visit(
      [&](const auto& w) { gemm(w.at(id), rows.begin, rows.end, x, y.data()); },
      matrix.weight);
  for (float* out : y) {
    add_bias(matrix, id, rows.begin, rows.end, out);
  }
}

/// Buffers of the calling thread, kept from call to call.
struct Scratch {
  PreparedVector gate_x, up_x;
  std::vector<PreparedVector> hidden; // one an expert of the token
  std::vector<float> values; // (top_k, hidden)
};

void token_hidden(
    const Experts& experts,
    const Routes& routes,
    int64_t token,
    int64_t task,
    Scratch& scratch) {
  const int64_t hidden = experts.hidden();
  const int64_t tasks = (hidden + kRowsATask - 1) / kRowsATask;
  const int64_t slot = task / tasks, begin = task % tasks * kRowsATask;
  const int64_t end = std::min(hidden, begin + kRowsATask);
  const int id = routes.ids[token * routes.top_k + slot];
  float gate[kRowsATask], up[kRowsATask];
  if (experts.gate) {
    const bool shared = same_format(*experts.gate, experts.up);
    multiply(
        *experts.gate,
        id,
        shared ? scratch.up_x : scratch.gate_x,
        begin,
        end,
        gate);
  }
  multiply(experts.up, id, scratch.up_x, begin, end, up);
  float* values = scratch.values.data() + slot * hidden;
  moe::activate(
      experts.activation,
      experts.gate ? gate : nullptr,
      up,
      values + begin,
      end - begin);
  scratch.hidden[slot].prepare_part(values, begin, end);
}

void token_down(
    const Experts& experts,
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
      multiply(
          experts.down,
          routes.ids[pair],
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
    const Experts& experts,
    const Routes& routes,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  static thread_local Scratch own;
  Scratch& scratch = own; // the caller's, on every thread
  const auto slots = static_cast<size_t>(routes.top_k);
  scratch.hidden.resize(std::max(scratch.hidden.size(), slots));
  scratch.values.resize(slots * static_cast<size_t>(experts.hidden()));
  for (size_t slot = 0; slot < slots; ++slot) {
    reserve(scratch.hidden[slot], experts.down);
  }
  reserve(scratch.up_x, experts.up);
  const bool gate_apart =
      experts.gate && !same_format(*experts.gate, experts.up);
  if (gate_apart) {
    reserve(scratch.gate_x, *experts.gate);
  }
  const int64_t tasks =
      (experts.hidden() + kRowsATask - 1) / kRowsATask * routes.top_k;
  for (size_t t = 0; t < x.size(); ++t) {
    const auto token = static_cast<int64_t>(t);
    scratch.up_x.prepare_part(x[t], 0, experts.dim());
    if (gate_apart) {
      scratch.gate_x.prepare_part(x[t], 0, experts.dim());
    }
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

/// The tokens of one expert.
struct Group {
  std::vector<const float*> x;
  std::vector<float*> hidden; // their rows of hidden values
  std::vector<float*> y;
  std::vector<float> weights;
  PreparedRows gate_inputs, up_inputs, hidden_inputs;

  int64_t count() const {
    return static_cast<int64_t>(x.size());
  }
};

void reserve(
    PreparedRows& rows,
    const ExpertMatrix& matrix,
    const float* const* x,
    int64_t count) {
  std::visit([&](const auto& w) { rows.reserve(w, x, count); }, matrix.weight);
}

void group_hidden(
    const Experts& experts,
    const Group& group,
    int e,
    Range r,
    std::vector<float>& gate) {
  const int64_t rows = r.end - r.begin;
  gate.resize(static_cast<size_t>(group.count() * rows));
  std::vector<float*> gate_out, up_out;
  for (int64_t i = 0; i < group.count(); ++i) {
    up_out.push_back(group.hidden[i] + r.begin);
    gate_out.push_back(gate.data() + i * rows);
  }
  multiply(experts.up, e, group.up_inputs, r, up_out);
  if (experts.gate) {
    const bool shared = same_format(*experts.gate, experts.up);
    multiply(
        *experts.gate,
        e,
        shared ? group.up_inputs : group.gate_inputs,
        r,
        gate_out);
  }
  for (int64_t i = 0; i < group.count(); ++i) {
    moe::activate(
        experts.activation,
        experts.gate ? gate_out[i] : nullptr,
        up_out[i],
        up_out[i],
        rows);
  }
}

void group_down(
    const Experts& experts,
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
  multiply(experts.down, e, group.hidden_inputs, r, out);
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
    const Experts& experts,
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
  const bool gate_apart =
      experts.gate && !same_format(*experts.gate, experts.up);
  for (Group& group : groups) {
    reserve(group.up_inputs, experts.up, group.x.data(), group.count());
    reserve(
        group.gate_inputs,
        gate_apart ? *experts.gate : experts.up,
        group.x.data(),
        gate_apart ? group.count() : 0);
    reserve(
        group.hidden_inputs, experts.down, group.hidden.data(), group.count());
  }
}

Range rows_of(int64_t part, int64_t rows) {
  return {part * kGemmRows, std::min(rows, (part + 1) * kGemmRows)};
}

void many_tokens(
    ThreadTeam& team,
    const Experts& experts,
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
        [](const Group& group) {
          return group.up_inputs.tiles() + group.gate_inputs.tiles();
        },
        [&](int e, int64_t part) {
          const int64_t tiles = groups[e].up_inputs.tiles();
          if (part < tiles) {
            groups[e].up_inputs.prepare_tile(part);
          } else {
            groups[e].gate_inputs.prepare_tile(part - tiles);
          }
        });
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

void run_experts(
    ThreadTeam& team,
    const Experts& experts,
    const Routes& routes,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  if (x.empty()) {
    return;
  }
  const int64_t many = experts.up.dense() ? kDenseGemmVectors : kGemmVectors;
  if (static_cast<int64_t>(x.size()) < many) {
    few_tokens(team, experts, routes, x, y);
  } else {
    many_tokens(team, experts, routes, x, y);
  }
}

} // namespace zmlx::cpu
