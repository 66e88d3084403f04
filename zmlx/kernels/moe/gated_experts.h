// SPDX-License-Identifier: MIT
// Gated feed-forward experts on the CPU: down(silu(gate x) * (up x)), summed
// over a token's experts with float32 accumulation.
#pragma once

#include <vector>

#include "zmlx/kernels/common/packed_matrix.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::cpu {

/// Stacks of equal matrices: gate and up (hidden, dim), down (dim, hidden); a
/// dense layer is a stack of one.
struct GatedExperts {
  PackedMatrix gate, up, down;
  int64_t dim() const {
    return down.rows;
  }
  int64_t hidden() const {
    return gate.rows;
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
void gated_experts(
    ThreadTeam& team,
    const GatedExperts& experts,
    const Routes& routes,
    const std::vector<const float*>& x,
    const std::vector<float*>& y);

} // namespace zmlx::cpu
