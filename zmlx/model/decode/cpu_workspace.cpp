// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cpu_workspace.h"

#include <cmath>

#include "zmlx/kernels/common/vector_math.h"

namespace zmlx::decode {

int Workspace::add_rotation(const attention::Spec& spec) {
  for (size_t i = 0; i < rotations.size(); ++i) {
    if (rotations[i].rope == spec.rope &&
        rotations[i].half() == spec.head_dim / 2) {
      return static_cast<int>(i);
    }
  }
  rotations.push_back({spec.rope, spec.rope.frequencies(spec.head_dim)});
  return static_cast<int>(rotations.size()) - 1;
}

Preparation::Preparation(
    const Norm* norm,
    std::initializer_list<const Matrix*> matrices)
    : cols_((*matrices.begin())->view.cols()) {
  if (norm) {
    weight_ = norm->weight.data<float>();
    eps_ = norm->eps;
  }
  for (const auto* matrix : matrices) {
    if (std::find(
            pool_indices_.begin(), pool_indices_.end(), matrix->pool_index) ==
        pool_indices_.end()) {
      pool_indices_.push_back(matrix->pool_index);
    }
  }
}

void Preparation::run(Lane& lane, Rows& rows) const {
  // 128 columns are a chunk of a prepared vector of any format.
  const auto [begin, end] = lane.share_of(cols_, 128);
  for (int b = 0; b < lane.batch() && begin < end; ++b) {
    const float* values = rows[b];
    if (weight_) {
      const float mean =
          cpu::dot(values, values, cols_) / static_cast<float>(cols_);
      float* normed = lane.work.normed[b];
      cpu::scale_mul(
          values + begin,
          1.0f / std::sqrt(mean + eps_),
          weight_ + begin,
          normed + begin,
          end - begin);
      values = normed;
    }
    for (const int index : pool_indices_) {
      lane.work.x[index][static_cast<size_t>(b)].prepare_part(
          values, begin, end);
    }
  }
  lane.team.barrier();
}

} // namespace zmlx::decode
