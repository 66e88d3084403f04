// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cpu_workspace.h"

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
  const auto [begin, end] = lane.share_of(cols_, kColumns);
  for (int b = 0; b < lane.batch() && begin < end; ++b) {
    const float* values = rows[b];
    if (weight_) {
      float* normed = lane.work.normed[b];
      cpu::scale_mul(
          values + begin,
          cpu::rms_scale(values, cols_, eps_),
          weight_ + begin,
          normed + begin,
          end - begin);
      values = normed;
    }
    prepare(lane, b, values, begin, end);
  }
  lane.barrier();
}

void Preparation::prepare(
    Lane& lane,
    int sequence,
    const float* values,
    int64_t begin,
    int64_t end) const {
  for (int64_t first = begin; first < end; first += kColumns) {
    for (const int index : pool_indices_) {
      lane.work.x[index][static_cast<size_t>(sequence)].prepare_part(
          values, first, std::min(end, first + kColumns));
    }
    lane.stream.ask(kLinesAPart);
  }
}

void multiply(
    Lane& lane,
    const MatrixView& w,
    const std::vector<cpu::PreparedVector>& vectors,
    const int* indices,
    Range rows,
    const cpu::RowsAhead& next) {
  const auto count = static_cast<int64_t>(lane.outputs.size());
  lane.inputs.clear();
  for (int64_t i = 0; i < count; ++i) {
    lane.inputs.push_back(
        &vectors[static_cast<size_t>(indices ? indices[i] : i)]);
  }
  w.matvec(
      lane.inputs.data(),
      count,
      rows.begin,
      rows.end,
      lane.outputs.data(),
      next);
}

} // namespace zmlx::decode
