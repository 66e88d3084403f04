// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/multiply_rows.h"

#include <algorithm>

#include "zmlx/kernels/common/dense.h"
#include "zmlx/kernels/common/gemm.h"
#include "zmlx/kernels/common/matvec.h"

namespace zmlx::cpu {
namespace {

// Threads share whole blocks.
constexpr int64_t kUnit = kBlockRows;

void few_vectors(
    ThreadTeam& team,
    const PackedMatrix& w,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  static thread_local std::vector<PreparedVector> own;
  auto& prepared = own; // the caller's, on every thread
  prepared.resize(std::max(prepared.size(), x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    prepared[i].prepare(x[i], w);
  }
  const auto count = static_cast<int64_t>(x.size());
  team.run([&](int thread) {
    const auto [begin, end] = share(w.rows, kUnit, thread, team.size());
    std::vector<const PreparedVector*> inputs;
    for (int64_t i = 0; i < count; ++i) {
      inputs.push_back(&prepared[static_cast<size_t>(i)]);
    }
    std::vector<float*> out;
    for (float* values : y) {
      out.push_back(values + begin);
    }
    matvec(w, inputs.data(), count, begin, end, out.data());
  });
}

void few_vectors(
    ThreadTeam& team,
    const DenseMatrix& w,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  team.run([&](int thread) {
    const auto [begin, end] = share(w.rows, 1, thread, team.size());
    // A row is read once and stays in L1 for the other vectors.
    const int64_t step = x.size() == 1 ? w.rows : 1;
    for (int64_t row = begin; row < end; row += step) {
      for (size_t i = 0; i < x.size(); ++i) {
        matvec(w, x[i], row, std::min(end, row + step), y[i] + row);
      }
    }
  });
}

template <class Matrix>
void many_vectors(
    ThreadTeam& team,
    const Matrix& w,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  static thread_local PreparedRows own;
  auto& prepared = own; // the caller's, on every thread
  prepared.reserve(w, x.data(), static_cast<int64_t>(x.size()));
  std::atomic<int64_t> next_tile{0}, next_row{0};
  team.run([&](int) {
    for (int64_t tile; (tile = next_tile++) < prepared.tiles();) {
      prepared.prepare_tile(tile);
    }
    team.barrier();
    std::vector<float*> out(y.size());
    for (int64_t row; (row = next_row.fetch_add(kGemmRows)) < w.rows;) {
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = y[i] + row;
      }
      gemm(w, row, std::min(w.rows, row + kGemmRows), prepared, out.data());
    }
  });
}

template <class Matrix>
void any_vectors(
    ThreadTeam& team,
    const Matrix& w,
    int64_t many,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  if (x.empty()) {
    return;
  }
  if (static_cast<int64_t>(x.size()) < many) {
    few_vectors(team, w, x, y);
  } else {
    many_vectors(team, w, x, y);
  }
}

} // namespace

void multiply_rows(
    ThreadTeam& team,
    const PackedMatrix& w,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  any_vectors(team, w, kGemmVectors, x, y);
}

void multiply_rows(
    ThreadTeam& team,
    const DenseMatrix& w,
    const std::vector<const float*>& x,
    const std::vector<float*>& y) {
  any_vectors(team, w, kDenseGemmVectors, x, y);
}

} // namespace zmlx::cpu
