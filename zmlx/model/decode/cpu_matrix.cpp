// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cpu_matrix.h"

#include "zmlx/kernels/common/dense.h"

namespace zmlx::decode {
namespace {

// Rows of a matrix that stay in L1 and L2 while several vectors pass over them.
constexpr int64_t kRowsAPass = 16;

std::variant<cpu::PackedMatrix, cpu::DenseMatrix> view_of(
    const Weight& weight) {
  if (const auto* packed = std::get_if<quant::QuantizedArrays>(&weight)) {
    return quant::view(*packed);
  }
  return quant::dense_view(std::get<mx::array>(weight));
}

} // namespace

MatrixView::MatrixView(const Weight& weight) : stored_(view_of(weight)) {}

MatrixView MatrixView::at(int64_t index) const {
  return std::visit(
      [&](const auto& w) { return MatrixView(Stored(w.at(index))); }, stored_);
}

cpu::RowsAhead MatrixView::ahead(int64_t row) const {
  if (const auto* w = packed()) {
    return {*w, row};
  }
  cpu::RowsAhead ahead;
  ahead.words = std::get<cpu::DenseMatrix>(stored_).row(row);
  return ahead;
}

void MatrixView::copy_row(int64_t row, float* out) const {
  if (const auto* w = packed()) {
    cpu::dequantize_row(*w, row, out);
  } else {
    cpu::copy_row(std::get<cpu::DenseMatrix>(stored_), row, out);
  }
}

void MatrixView::matvec(
    const cpu::PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    const cpu::RowsAhead& next) const {
  if (const auto* w = packed()) {
    cpu::matvec(*w, x, begin, end, y, next);
  } else {
    cpu::matvec(std::get<cpu::DenseMatrix>(stored_), x.values(), begin, end, y);
  }
}

void multiply(
    const MatrixView& w,
    const std::vector<cpu::PreparedVector>& vectors,
    const int* indices,
    int64_t count,
    Range rows,
    float* const* out,
    const cpu::RowsAhead& next) {
  const int64_t step = count == 1 ? rows.end - rows.begin : kRowsAPass;
  for (int64_t row = rows.begin; row < rows.end; row += step) {
    const int64_t end = std::min(rows.end, row + step);
    for (int64_t i = 0; i < count; ++i) {
      w.matvec(
          vectors[static_cast<size_t>(indices ? indices[i] : i)],
          row,
          end,
          out[i] + (row - rows.begin),
          i + 1 < count        ? cpu::RowsAhead()
              : end < rows.end ? w.ahead(end)
                               : next);
    }
  }
}

} // namespace zmlx::decode
