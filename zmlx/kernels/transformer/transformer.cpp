// SPDX-License-Identifier: MIT
// Gated activations, dropout, and norms of sums.
#include "zmlx/kernels/transformer/transformer.h"

#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/reduce.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/dropout_mask.h"
#include "zmlx/kernels/common/kept_operations.h"
#include "zmlx/kernels/common/norm_rows.h"

namespace zmlx::transformer {
namespace {

void check_halves(const char* op, const mx::array& x) {
  if (x.ndim() == 0 || x.shape(-1) % 2 != 0) {
    invalid(op, "the last axis of x must be even, got ", x.shape(), '.');
  }
}

// The gradient of a split is one concatenation.
mx::array
of_halves(const char* op, const Elementwise& operation, const mx::array& x) {
  check_halves(op, x);
  const auto halves = mx::split(x, 2, -1);
  return operation(halves[0], halves[1]);
}

mx::array of_biased_halves(
    const char* op,
    const Elementwise& operation,
    const mx::array& x,
    const mx::array& bias) {
  check_halves(op, x);
  if (bias.shape() != mx::Shape{x.shape(-1)}) {
    invalid(
        op,
        "bias must have the shape of x's last axis, got x ",
        x.shape(),
        " and bias ",
        bias.shape(),
        '.');
  }
  const auto halves = mx::split(x, 2, -1), biases = mx::split(bias, 2, -1);
  return mx::astype(
      operation(
          std::vector<mx::array>{halves[0], halves[1], biases[0], biases[1]}),
      x.dtype());
}

const Elementwise& gated_silu() {
  static const Elementwise made =
      map("swiglu", "silu(gate) * up", {"gate", "up"});
  return made;
}

const Elementwise& gated_gelu() {
  static const Elementwise made =
      map("geglu", "gelu_tanh(gate) * up", {"gate", "up"});
  return made;
}

RowOperation dropout_operation(double p) {
  return row_operation(
      {.name = "dropout",
       .inputs = {"x", "column"},
       .row_inputs = {"first", "second"},
       .write = {"x * keep(column, first, second)"},
       .header = dropout_mask::text(p)});
}

} // namespace

mx::array swiglu(const mx::array& x) {
  return of_halves("swiglu", gated_silu(), x);
}

mx::array geglu(const mx::array& x) {
  return of_halves("geglu", gated_gelu(), x);
}

mx::array swiglu2(const mx::array& gate, const mx::array& up) {
  return gated_silu()(gate, up);
}

mx::array geglu2(const mx::array& gate, const mx::array& up) {
  return gated_gelu()(gate, up);
}

mx::array bias_swiglu(const mx::array& x, const mx::array& bias) {
  static const Elementwise operation =
      map("bias_swiglu", "silu(gate + a) * (up + b)", {"gate", "up", "a", "b"});
  return of_biased_halves("bias_swiglu", operation, x, bias);
}

mx::array bias_geglu(const mx::array& x, const mx::array& bias) {
  static const Elementwise operation = map(
      "bias_geglu", "gelu_tanh(gate + a) * (up + b)", {"gate", "up", "a", "b"});
  return of_biased_halves("bias_geglu", operation, x, bias);
}

mx::array dropout(const mx::array& x, double p, uint64_t seed) {
  dropout_mask::check("dropout", p);
  if (!mx::issubdtype(x.dtype(), mx::floating)) {
    invalid("dropout", "x must be floating, got ", x.dtype(), '.');
  }
  static KeptOperations<double, RowOperation> kept;
  const auto& operation = kept.get(p, [&] { return dropout_operation(p); });
  const mx::array rows = x.ndim() == 0 ? mx::reshape(x, {1}) : x;
  const auto places = dropout_mask::places("dropout", rows, seed);
  const mx::array result = operation.results(
      {rows, places.column, places.first, places.second}, {x.dtype()})[0];
  return x.ndim() == 0 ? mx::reshape(result, {}) : result;
}

std::pair<mx::array, mx::array> rmsnorm_residual(
    const mx::array& x,
    const mx::array& residual,
    const mx::array& weight,
    float eps) {
  const auto both = norm::normalise(
      "rmsnorm_residual",
      {.eps = eps, .returns_sum = true},
      x,
      residual,
      weight);
  return {both[0], both[1]};
}

mx::array fused_add_rmsnorm(
    const mx::array& x1,
    const mx::array& x2,
    const mx::array& weight,
    float eps) {
  return norm::normalise("fused_add_rmsnorm", {.eps = eps}, x1, x2, weight)[0];
}

std::pair<mx::array, mx::array> layernorm_residual(
    const mx::array& x,
    const mx::array& residual,
    const mx::array& gamma,
    const mx::array& beta,
    float eps) {
  const auto both = norm::normalise(
      "layernorm_residual",
      {.centred = true, .eps = eps, .returns_sum = true},
      x,
      residual,
      gamma,
      beta);
  return {both[0], both[1]};
}

mx::array fused_add_layernorm(
    const mx::array& x1,
    const mx::array& x2,
    const mx::array& gamma,
    const mx::array& beta,
    float eps) {
  return norm::normalise(
      "fused_add_layernorm",
      {.centred = true, .eps = eps},
      x1,
      x2,
      gamma,
      beta)[0];
}

mx::array rms_norm_dropout(
    const mx::array& x,
    const mx::array& weight,
    double p,
    uint64_t seed,
    float eps) {
  return norm::normalise(
      "rms_norm_dropout",
      {.eps = eps, .dropout = p, .seed = seed},
      x,
      std::nullopt,
      weight)[0];
}

} // namespace zmlx::transformer
