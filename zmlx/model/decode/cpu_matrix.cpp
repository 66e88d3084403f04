// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cpu_matrix.h"

#include "zmlx/kernels/common/dense.h"

namespace zmlx::decode {
namespace {

// Rows of a dense matrix that stay in L1 and L2 while vectors pass over them.
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

cpu::RowsAhead MatrixView::ahead(Range range) const {
  auto ahead = this->ahead(range.begin);
  const int64_t count = range.end - range.begin;
  const auto* w = packed();
  ahead.bytes = count *
      (w && !w->in_blocks ? 4 * w->words_per_row()
                          : static_cast<int64_t>(nbytes()) / rows());
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
    const cpu::PreparedVector* const* x,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    const cpu::RowsAhead& next) const {
  if (const auto* w = packed()) {
    cpu::matvec(*w, x, count, begin, end, y, next);
    return;
  }
  const auto& w = std::get<cpu::DenseMatrix>(stored_);
  const int64_t step = count == 1 ? end - begin : kRowsAPass;
  for (int64_t row = begin; row < end; row += step) {
    for (int64_t i = 0; i < count; ++i) {
      cpu::matvec(
          w,
          x[i]->values(),
          row,
          std::min(end, row + step),
          y[i] + (row - begin));
    }
  }
}

} // namespace zmlx::decode
