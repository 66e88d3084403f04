// SPDX-License-Identifier: MIT
// Feed-forward experts on the CPU: down(activation(gate x, up x)), summed over
// a token's experts with float32 accumulation.
#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "zmlx/kernels/common/packed_matrix.h"
#include "zmlx/kernels/moe/activation.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::cpu {

/// A stack of equal (rows, cols) matrices of either kind, and what is added to
/// their products; a dense layer is a stack of one.
struct ExpertMatrix {
  std::variant<PackedMatrix, DenseMatrix> weight;
  DenseMatrix bias = {}; // (experts, rows); no values: none

  int64_t rows() const {
    return std::visit([](const auto& w) { return w.rows; }, weight);
  }
  int64_t cols() const {
    return std::visit([](const auto& w) { return w.cols; }, weight);
  }
  bool dense() const {
    return std::holds_alternative<DenseMatrix>(weight);
  }
};

/// gate (or none) and up (hidden, dim), down (dim, hidden).
struct Experts {
  std::optional<ExpertMatrix> gate;
  ExpertMatrix up, down;
  moe::Activation activation;

  int64_t dim() const {
    return down.rows();
  }
  int64_t hidden() const {
    return up.rows();
  }
};

/// Which experts each token goes to: ids and weights (tokens, top_k).
struct Routes {
  const int* ids;
  const float* weights;
  int top_k;
  int experts;
};

/// y[t] = sum over j of weights[t][j] * expert ids[t][j] of x[t]. Each x[t] and
/// y[t] has dim floats. Few tokens read the experts' weights once a token, many
/// are grouped by expert. Bitwise the same for any number of threads.
void run_experts(
    ThreadTeam& team,
    const Experts& experts,
    const Routes& routes,
    const std::vector<const float*>& x,
    const std::vector<float*>& y);

} // namespace zmlx::cpu
