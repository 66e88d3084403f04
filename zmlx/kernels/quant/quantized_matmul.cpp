// SPDX-License-Identifier: MIT
#include "zmlx/kernels/quant/quantized_matmul.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/gemm.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::quant {
namespace {

// Rows of a matrix that stay in a core's L2 while few vectors pass over them.
constexpr int64_t kResidentRows = 64;

/// The inputs and outputs of one product, as float32 rows.
struct Product {
  cpu::PackedMatrix w;
  std::vector<const float*> x;
  std::vector<float*> y;
};

void run_small(const Product& product) {
  const auto team = thread_team();
  const auto& w = product.w;
  static thread_local std::vector<cpu::PreparedVector> prepared;
  prepared.resize(std::max(prepared.size(), product.x.size()));
  for (size_t i = 0; i < product.x.size(); ++i) {
    prepared[i].prepare(product.x[i], w.cols, w.bits, w.group_size);
  }
  const auto& vectors = prepared; // of this thread, for every thread
  team->run([&](int thread) {
    const auto [begin, end] = share(w.rows, 4, thread, team->size());
    const int64_t step = product.x.size() == 1 ? w.rows : kResidentRows;
    for (int64_t row = begin; row < end; row += step) {
      for (size_t i = 0; i < product.x.size(); ++i) {
        cpu::matvec(
            w, vectors[i], row, std::min(end, row + step), product.y[i] + row);
      }
    }
  });
}

void run_large(const Product& product) {
  const auto team = thread_team();
  std::atomic<int64_t> next{0};
  constexpr int64_t kRowsATask = 64;
  team->run([&](int) {
    std::vector<float*> y(product.y.size());
    for (;;) {
      const int64_t begin = next.fetch_add(kRowsATask);
      if (begin >= product.w.rows) {
        return;
      }
      for (size_t i = 0; i < y.size(); ++i) {
        y[i] = product.y[i] + begin;
      }
      cpu::gemm(
          product.w,
          begin,
          std::min(product.w.rows, begin + kRowsATask),
          product.x.data(),
          static_cast<int64_t>(product.x.size()),
          y.data());
    }
  });
}

void compute(
    const mx::array& x,
    const QuantizedArrays& w,
    const mx::array* bias,
    mx::array& out) {
  const RowReader rows(x);
  const int64_t count = rows.rows();
  if (count == 0) {
    return;
  }
  Product product{view(w), {}, {}};
  const int64_t width = product.w.rows;
  const bool direct = out.dtype() == mx::float32;
  std::vector<std::vector<float>> scratch(static_cast<size_t>(count));
  std::vector<float> results(direct ? 0 : static_cast<size_t>(count * width));
  for (int64_t i = 0; i < count; ++i) {
    product.x.push_back(rows.row(i, scratch[i]));
    product.y.push_back(
        (direct ? out.data<float>() : results.data()) + i * width);
  }
  count < cpu::kGemmVectors ? run_small(product) : run_large(product);
  std::vector<float> bias_scratch;
  const float* added = bias ? RowReader(*bias).row(0, bias_scratch) : nullptr;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t n = 0; added && n < width; ++n) {
      product.y[i][n] += added[n];
    }
    if (!direct) {
      store_row(out, i, product.y[i], width);
    }
  }
}

} // namespace

mx::array quantized_matmul(
    const mx::array& x,
    const QuantizedArrays& w,
    const std::optional<mx::array>& bias) {
  constexpr const char* kOp = "quantized_matmul";
  if (const auto why = why_unsupported(w, "affine"); !why.empty()) {
    invalid(kOp, why, '.');
  }
  const int cols = static_cast<int>(int64_t{w.words.shape(-1)} * 32 / w.bits);
  if (x.ndim() == 0 || x.shape(-1) != cols) {
    invalid(
        kOp,
        "the last axis of x must be ",
        cols,
        " to match the weights, got ",
        x.shape(),
        '.');
  }
  if (!is_float(x.dtype())) {
    invalid(kOp, "x must be a floating-point array, got ", x.dtype(), '.');
  }
  mx::Shape shape = x.shape();
  shape.back() = w.words.shape(-2);
  std::vector<mx::array> inputs = {x, w.words, w.scales, w.biases};
  if (bias) {
    inputs.push_back(*bias);
  }
  const int bits = w.bits, group_size = w.group_size;
  return cpu_op(
      "QuantizedMatmulCpu",
      std::move(inputs),
      {{std::move(shape), x.dtype()}},
      [bits, group_size](const auto& in, auto& out) {
        const QuantizedArrays arrays{in[1], in[2], in[3], bits, group_size};
        compute(in[0], arrays, in.size() > 4 ? &in[4] : nullptr, out[0]);
      })[0];
}

} // namespace zmlx::quant
