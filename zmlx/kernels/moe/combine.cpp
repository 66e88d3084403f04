// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/combine.h"

#include <algorithm>

#include "zmlx/authoring/reduce.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/kept_operations.h"
#include "zmlx/kernels/common/own_gradient.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/kernels/common/vector_math.h"
#include "zmlx/kernels/moe/gather_kernel.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::moe {
namespace {

using Arrays = std::vector<mx::array>;

// e times w along the axis of experts. `rounded` names a type to whose values
// every step is rounded; "float" for float32, "" for no rounding in between.
RowOperation sum_operation(const std::string& rounded) {
  // A sum of acc itself would be taken in any order.
  const std::string acc = "copysign(fabs(acc), acc)";
  const auto round = [&](const std::string& text) {
    return concat(rounded, '(', text, ')');
  };
  return reduce(
      {.init = "0.0f",
       .update = rounded.empty()
           ? "acc + e * w"
           : round(concat(acc, " + ", round("e * " + round("w")))),
       .name = "moe_combine",
       .inputs = {"e", "w"},
       .axis = -2});
}

const RowOperation& sum_of(const std::string& rounded) {
  static KeptOperations<std::string, RowOperation> kept;
  return kept.get(rounded, [&] { return sum_operation(rounded); });
}

const RowOperation& gradients_of() {
  static const RowOperation made = row_operation(
      {.name = "moe_combine_gradient",
       .inputs = {"e", "g"},
       .row_inputs = {"w"},
       .totals = {{"slope", "0.0f", "acc + e * g"}},
       .write = {"g * w"},
       .finish = {"slope"}});
  return made;
}

// Tokens begin..end-1 of a sum without rounding in between.
void sum_tokens(
    const RowReader& e,
    const RowReader& w,
    int64_t begin,
    int64_t end,
    mx::array& out) {
  const int64_t dim = e.width(), k = w.width();
  std::vector<float> scratch, weights_scratch;
  std::vector<float> sum(static_cast<size_t>(dim));
  for (int64_t t = begin; t < end; ++t) {
    const float* weights = w.row(t, weights_scratch);
    std::ranges::fill(sum, 0.0f);
    for (int64_t i = 0; i < k; ++i) {
      cpu::axpy(weights[i], e.row(t * k + i, scratch), sum.data(), dim);
    }
    store_row(out, t, sum.data(), dim);
  }
}

// sum_of("") in a third of the time: its column walk reads memory in short
// runs.
Arrays sum_on_cpu(const Arrays& given, mx::Dtype dtype) {
  mx::Shape shape = given[1].shape();
  shape.back() = given[0].shape(-1);
  return cpu_op(
      "MoeCombineCpu",
      given,
      {{std::move(shape), dtype}},
      [](const auto& in, auto& out) {
        const RowReader e(in[0]), w(in[1]);
        if (in[0].size() <= 16384) { // a team costs 0.5 us
          sum_tokens(e, w, 0, w.rows(), out[0]);
          return;
        }
        const auto team = thread_team();
        team->run([&](int thread) {
          const auto part = share(w.rows(), 1, thread, team->size());
          sum_tokens(e, w, part.begin, part.end, out[0]);
        });
      });
}

bool takes_cpu_sum(const mx::array& e, const mx::array& w) {
  return mx::default_device() == mx::Device::cpu &&
      quant::is_float(e.dtype()) && quant::is_float(w.dtype());
}

void check_weights(
    const char* op,
    const mx::array& expert_outputs,
    const mx::array& weights) {
  const mx::Shape& shape = expert_outputs.shape();
  if (shape.size() < 2 ||
      mx::Shape(shape.begin(), shape.end() - 1) != weights.shape()) {
    invalid(
        op,
        "weights must have the shape of expert_outputs less the last axis, "
        "got expert_outputs ",
        shape,
        " and weights ",
        weights.shape(),
        '.');
  }
}

mx::array combined(
    const char* op,
    const mx::array& expert_outputs,
    const mx::array& weights,
    mx::Dtype dtype,
    const std::string& rounded) {
  check_weights(op, expert_outputs, weights);
  const auto forward = [dtype, rounded](const Arrays& in) {
    const Arrays sums =
        sum_of(rounded).results({in[0], mx::expand_dims(in[1], -1)}, {dtype});
    return Arrays{mx::squeeze(sums[0], -2)};
  };
  const auto vjp = [](const Arrays& in,
                      const Arrays& cotangents,
                      const Arrays&) {
    const Arrays made = gradients_of().results(
        {in[0], mx::expand_dims(cotangents[0], -2), mx::expand_dims(in[1], -1)},
        {in[0].dtype(), in[1].dtype()});
    return Arrays{made[0], mx::squeeze(made[1], -1)};
  };
  const Arrays in = {expert_outputs, weights};
  if (rounded.empty() && takes_cpu_sum(expert_outputs, weights)) {
    return with_own_gradient(
        in,
        [dtype](const Arrays& given) { return sum_on_cpu(given, dtype); },
        forward,
        vjp)[0];
  }
  return with_own_gradient(in, forward, vjp)[0];
}

// act (batch, k, in), gate and indices (batch, k).
void check_gather(
    const char* op,
    const mx::array& act,
    const mx::array& gate,
    const mx::array& indices,
    int cols,
    int ndim) {
  const mx::Shape& shape = act.shape();
  if (shape.size() != 3 || ndim != 3 || shape[2] != cols ||
      gate.shape() != mx::Shape{shape[0], shape[1]} ||
      indices.shape() != gate.shape()) {
    invalid(
        op,
        "act must be (batch, k, in), weights (experts, in and out), gate and "
        "indices (batch, k), got act ",
        shape,
        ", weights with in ",
        cols,
        ", gate ",
        gate.shape(),
        " and indices ",
        indices.shape(),
        '.');
  }
  if (!mx::issubdtype(indices.dtype(), mx::integer)) {
    invalid(op, "indices must be integers, got ", indices.dtype(), '.');
  }
}

bool on_cpu() {
  return mx::default_device() == mx::Device::cpu;
}

// products: (batch, k, 1, out).
mx::array gated(
    const char* op,
    const mx::array& products,
    const mx::array& gate,
    mx::Dtype dtype) {
  return combined(op, mx::squeeze(products, 2), gate, dtype, "");
}

} // namespace

mx::array moe_dispatch(const mx::array& x, const mx::array& indices) {
  const mx::Shape& shape = indices.shape();
  if (x.ndim() == 0 || shape.empty() ||
      mx::Shape(shape.begin(), shape.end() - 1) !=
          mx::Shape(x.shape().begin(), x.shape().end() - 1)) {
    invalid(
        "moe_dispatch",
        "indices must have the shape of x but for the last axis, got x ",
        x.shape(),
        " and indices ",
        shape,
        '.');
  }
  mx::Shape spread = shape;
  spread.push_back(x.shape(-1));
  return mx::broadcast_to(mx::expand_dims(x, -2), spread);
}

mx::array moe_combine(
    const mx::array& expert_outputs,
    const mx::array& weights) {
  return combined(
      "moe_combine", expert_outputs, weights, expert_outputs.dtype(), "");
}

mx::array moe_combine_exact(
    const mx::array& expert_outputs,
    const mx::array& weights) {
  const mx::Dtype dtype = expert_outputs.dtype();
  return combined(
      "moe_combine_exact",
      expert_outputs,
      weights,
      dtype,
      dtype == mx::float16        ? "half"
          : dtype == mx::bfloat16 ? "bfloat"
                                  : "float");
}

mx::array moe_combine_fp32(
    const mx::array& expert_outputs,
    const mx::array& weights) {
  return combined("moe_combine_fp32", expert_outputs, weights, mx::float32, "");
}

mx::array gather_qmm_combine(
    const mx::array& act,
    const mx::array& weights,
    const mx::array& gate,
    const mx::array& indices) {
  check_gather(
      "gather_qmm_combine",
      act,
      gate,
      indices,
      weights.ndim() == 3 ? weights.shape(1) : 0,
      static_cast<int>(weights.ndim()));
  // MLX's CPU products of narrow types are missing, or sum in them.
  const auto composed = [](const Arrays& in) {
    return gated(
        "gather_qmm_combine",
        mx::gather_mm(
            mx::astype(mx::expand_dims(mx::contiguous(in[0]), 2), mx::float32),
            mx::astype(mx::contiguous(in[1]), mx::float32),
            std::nullopt,
            in[3]),
        in[2],
        in[0].dtype());
  };
  const Arrays inputs = {act, weights, gate, indices};
  return on_cpu() ? composed(inputs) : gather_by_kernel(inputs, composed);
}

mx::array gather_qmm_combine_quantized(
    const mx::array& act,
    const quant::QuantizedArrays& weights,
    const mx::array& gate,
    const mx::array& indices) {
  check_gather(
      "gather_qmm_combine_quantized",
      act,
      gate,
      indices,
      weights.scales.ndim() == 3 ? weights.scales.shape(-1) * weights.group_size
                                 : 0,
      static_cast<int>(weights.words.ndim()));
  const int bits = weights.bits, group_size = weights.group_size;
  const auto composed = [bits, group_size](const Arrays& in) {
    return gated(
        "gather_qmm_combine_quantized",
        mx::gather_qmm(
            mx::astype(mx::expand_dims(mx::contiguous(in[0]), 2), mx::float32),
            in[1],
            mx::astype(in[2], mx::float32),
            mx::astype(in[3], mx::float32),
            std::nullopt,
            in[5],
            true,
            group_size,
            bits),
        in[4],
        in[0].dtype());
  };
  const Arrays inputs = {
      act, weights.words, weights.scales, weights.biases, gate, indices};
  return on_cpu() ? composed(inputs)
                  : gather_by_kernel(inputs, bits, group_size, composed);
}

} // namespace zmlx::moe
