// SPDX-License-Identifier: MIT
#include "zmlx/kernels/quant/norm_qkv.h"

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/apply_matrix.h"
#include "zmlx/kernels/common/composed_transforms.h"
#include "zmlx/kernels/common/unit_product.h"
#include "zmlx/kernels/quant/norm_qkv_kernel.h"
#include "zmlx/kernels/quant/quantized_matmul.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/device_name.h"

namespace zmlx::quant {
namespace {

using Arrays = std::vector<mx::array>;

constexpr const char* kOp = "rms_norm_qkv";

void check_linear(const PackedLinear& linear, int dim) {
  const auto& [weight, bias] = linear;
  if (const auto why = why_unsupported(weight); !why.empty()) {
    invalid(kOp, why, '.');
  }
  if (weight.words.ndim() != 2 || cols_of(weight) != dim) {
    invalid(
        kOp,
        "matrices must have ",
        dim,
        " columns to match x, got ",
        cols_of(weight),
        " of words ",
        weight.words.shape(),
        '.');
  }
  const mx::Shape rows = {rows_of(weight)};
  if (bias && (bias->shape() != rows || !is_float(bias->dtype()))) {
    invalid(
        kOp,
        "a bias must be ",
        rows,
        " float, got ",
        bias->shape(),
        " of ",
        bias->dtype(),
        '.');
  }
}

void check(const mx::array& x, const NormQkv& with) {
  const auto& weight = with.norm_weight;
  if (!is_float(x.dtype()) || x.ndim() == 0 || !is_float(weight.dtype()) ||
      weight.shape() != mx::Shape{x.shape(-1)}) {
    invalid(
        kOp,
        "x must be (..., dim) and the norm's weight (dim) of float32, float16 "
        "or bfloat16, got ",
        x.shape(),
        " of ",
        x.dtype(),
        " and ",
        weight.shape(),
        " of ",
        weight.dtype(),
        '.');
  }
  if (with.linears.empty() || with.linears.size() > 3) {
    invalid(
        kOp, "matrices must be one to three, got ", with.linears.size(), '.');
  }
  for (const auto& linear : with.linears) {
    check_linear(linear, x.shape(-1));
  }
}

Arrays arrays_of(const mx::array& x, const NormQkv& with) {
  Arrays arrays = {x, with.norm_weight};
  for (const auto& [weight, bias] : with.linears) {
    if (!weight.blocks) { // else the rows may not be there, nor are they read
      arrays.insert(arrays.end(), {weight.words, weight.scales, weight.biases});
    }
    if (bias) {
      arrays.push_back(*bias);
    }
  }
  return arrays;
}

/// The same with other arrays, in that order.
NormQkv of_arrays(NormQkv with, const Arrays& in) {
  size_t next = 1;
  with.norm_weight = in[next++];
  for (auto& [weight, bias] : with.linears) {
    if (!weight.blocks) {
      weight.words = in[next++];
      weight.scales = in[next++];
      weight.biases = in[next++];
    }
    if (bias) {
      bias = in[next++];
    }
  }
  return with;
}

/// Places of x, the norm's weight and biases.
std::vector<int> differentiable(const NormQkv& with) {
  std::vector<int> places = {0, 1};
  int next = 2;
  for (const auto& [weight, bias] : with.linears) {
    next += weight.blocks ? 0 : 3;
    if (bias) {
      places.push_back(next++);
    }
  }
  return places;
}

mx::array whole_weight(const NormQkv& with) {
  const auto& weight = with.norm_weight;
  return with.one_plus ? mx::array(1.0f, weight.dtype()) + weight : weight;
}

Arrays composed(
    const mx::array& x,
    const NormQkv& with,
    decltype(composed_quantized_matmul) product) {
  const auto normed = mx::fast::rms_norm(
      x, mx::astype(whole_weight(with), x.dtype()), with.eps);
  Arrays outputs;
  for (const auto& [weight, bias] : with.linears) {
    outputs.push_back(product(normed, weight, bias));
  }
  return outputs;
}

mx::array stock_product(
    const mx::array& x,
    const QuantizedArrays& w,
    const std::optional<mx::array>& bias) {
  const auto y = mlx_product(x, w);
  return bias ? y + mx::astype(*bias, y.dtype()) : y;
}

/// Rows of x, normalised.
std::vector<float> normalised(
    const NormQkv& with,
    const std::vector<const float*>& x,
    int64_t dim) {
  std::vector<float> scratch, normed(x.size() * static_cast<size_t>(dim));
  const float* weight = RowReader(with.norm_weight).row(0, scratch);
  const auto run = [&](Range rows) {
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      const float* row = x[static_cast<size_t>(i)];
      const float scale = cpu::rms_scale(row, dim, with.eps);
      cpu::scale_mul(row, scale, weight, normed.data() + i * dim, dim);
    }
  };
  const auto count = static_cast<int64_t>(x.size());
  if (count < kFewRows) { // less than to wake a team
    run({0, count});
    return normed;
  }
  const auto team = thread_team();
  team->run([&](int thread) { run(share(count, 1, thread, team->size())); });
  return normed;
}

void run_on_cpu(const NormQkv& with, const mx::array& x, Arrays& out) {
  const int64_t dim = x.shape(-1);
  const auto normed = normalised(with, RowsInOut(x, out[0]).x, dim);
  std::vector<const float*> rows;
  for (size_t at = 0; at < normed.size(); at += static_cast<size_t>(dim)) {
    rows.push_back(normed.data() + at);
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const auto& [matrix, bias] = with.linears[i];
    RowsInOut in_out(x, out[i]);
    cpu::apply_matrix(rows, view(matrix), bias ? &*bias : nullptr, in_out);
  }
}

Arrays on_cpu(const NormQkv& with, const Arrays& given) {
  std::vector<CpuOutput> outputs;
  for (const auto& linear : with.linears) {
    mx::Shape shape = given[0].shape();
    shape.back() = rows_of(linear.weight);
    outputs.push_back({std::move(shape), given[0].dtype()});
  }
  NormQkv plain = of_arrays(with, given);
  Arrays inputs = given;
  inputs[1] = whole_weight(plain);
  plain.one_plus = false;
  return cpu_op(
      "NormQkvCpu", inputs, outputs, [plain](const Arrays& in, Arrays& out) {
        run_on_cpu(of_arrays(plain, in), in[0], out);
      });
}

Arrays on_gpu(const mx::array& x, const NormQkv& with) {
  const int64_t rows = static_cast<int64_t>(x.size()) / x.shape(-1);
  const bool by_kernel =
      rows < kFewRows && fits_kernel(with) && !traced(arrays_of(x, with));
  return by_kernel ? norm_qkv_by_kernel(x, with)
                   : composed(x, with, stock_product);
}

} // namespace

std::vector<mx::array> rms_norm_qkv(const mx::array& x, const NormQkv& with) {
  check(x, with);
  if (on_a_gpu()) {
    return on_gpu(x, with);
  }
  return differentiable_op(
      {kOp,
       [with](const Arrays& in) { return on_cpu(with, in); },
       [with](const Arrays& in) {
         return composed(in[0], of_arrays(with, in), composed_quantized_matmul);
       },
       differentiable(with)},
      arrays_of(x, with));
}

} // namespace zmlx::quant
