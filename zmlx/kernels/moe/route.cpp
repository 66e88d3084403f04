// SPDX-License-Identifier: MIT
// route() of arrays: checks, CPU rows, gradient.
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/composed_transforms.h"
#include "zmlx/kernels/common/quantized_arrays.h"
#include "zmlx/kernels/common/reference.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/kernels/moe/route_kernel.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/device_name.h"
#include "zmlx/runtime/thread_team.h"
#include "zmlx/runtime/transformed_op.h"

namespace zmlx::moe {
namespace {

using Arrays = std::vector<mx::array>;

// A token costs about 1 us; a team pays from a few on.
constexpr int64_t kTokensOfOneThread = 4;

void route_rows(
    const RouterSpec& spec,
    const RowReader& logits,
    const float* bias,
    Range rows,
    Arrays& out) {
  const auto experts = static_cast<int>(logits.width());
  std::vector<float> scratch;
  std::vector<int> ids(static_cast<size_t>(spec.top_k));
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    route(
        spec,
        logits.row(r, scratch),
        bias,
        experts,
        ids.data(),
        out[0].data<float>() + r * spec.top_k);
    std::copy(ids.begin(), ids.end(), out[1].data<uint32_t>() + r * spec.top_k);
  }
}

Arrays on_cpu(const Arrays& inputs, const RouterSpec& spec) {
  mx::Shape shape = inputs[0].shape();
  shape.back() = spec.top_k;
  return cpu_op(
      "RouteCpu",
      inputs,
      {{shape, mx::float32}, {shape, mx::uint32}},
      [spec](const Arrays& in, Arrays& out) {
        const RowReader logits(in[0]);
        std::vector<float> scratch;
        const float* bias =
            in.size() > 1 ? RowReader(in[1]).row(0, scratch) : nullptr;
        if (logits.rows() <= kTokensOfOneThread) {
          route_rows(spec, logits, bias, {0, logits.rows()}, out);
          return;
        }
        const auto team = thread_team();
        team->run([&](int thread) {
          const Range mine = share(logits.rows(), 1, thread, team->size());
          route_rows(spec, logits, bias, mine, out);
        });
      });
}

Arrays on_gpu(const Arrays& inputs, const RouterSpec& spec) {
  std::optional<mx::array> bias;
  if (inputs.size() > 1) {
    bias = mx::astype(inputs[1], mx::float32);
  }
  const auto [weights, ids] = route_by_kernel(inputs[0], spec, bias);
  return {weights, ids};
}

std::optional<mx::array> bias_of(const Arrays& inputs) {
  return inputs.size() > 1 ? std::optional(inputs[1]) : std::nullopt;
}

Arrays routed(const Arrays& inputs, const RouterSpec& spec);

/// weights_of() as a function of floats, with the experts fixed.
std::function<Arrays(const Arrays&)> weights_function(
    const RouterSpec& spec,
    const mx::array& chosen) {
  return [spec, chosen = mx::stop_gradient(chosen)](const Arrays& in) {
    return Arrays{weights_of(in[0], spec, bias_of(in), chosen)};
  };
}

OpTransforms transforms(const RouterSpec& spec) {
  OpTransforms transforms;
  transforms.vjp = [spec](
                       const Arrays& primals,
                       const Arrays& cotangents,
                       const Arrays& outputs) {
    return mx::vjp(weights_function(spec, outputs[1]), primals, {cotangents[0]})
        .second;
  };
  transforms.jvp = [spec](
                       const Arrays& primals,
                       const Arrays& tangents,
                       const std::vector<int>& argnums) {
    const mx::array chosen = routed(primals, spec)[1];
    Arrays all;
    for (const auto& primal : primals) {
      all.push_back(mx::zeros_like(primal));
    }
    for (size_t i = 0; i < argnums.size(); ++i) {
      all[argnums[i]] = tangents[i];
    }
    Arrays out = mx::jvp(weights_function(spec, chosen), primals, all).second;
    out.push_back(mx::zeros(chosen.shape(), mx::uint32));
    return out;
  };
  transforms.vmap = [spec](const Arrays& inputs, const std::vector<int>& axes) {
    return mapped_rows(
        [spec](const Arrays& given) { return routed(given, spec); },
        inputs,
        axes);
  };
  return transforms;
}

Arrays routed(const Arrays& inputs, const RouterSpec& spec) {
  const bool gpu = on_a_gpu();
  if (gpu && inputs[0].size() == 0) { // a grid has threads
    mx::Shape shape = inputs[0].shape();
    shape.back() = spec.top_k;
    return {mx::zeros(shape, mx::float32), mx::zeros(shape, mx::uint32)};
  }
  return transformed_op(
      gpu ? on_gpu(inputs, spec) : on_cpu(inputs, spec),
      inputs.size(),
      transforms(spec));
}

mx::array at_chosen(const mx::array& values, const mx::array& chosen) {
  return mx::take_along_axis(values, chosen, -1);
}

mx::array sparse_weights(
    const mx::array& logits,
    const RouterSpec& spec,
    const mx::array& chosen) {
  const auto places = mx::arange(logits.shape(-1), mx::uint32);
  const mx::array zero = reference::number(0, logits);
  mx::array left = mx::ones(logits.shape(), mx::bool_);
  Arrays weights;
  for (int j = 0; j < spec.top_k; ++j) {
    mx::Shape begin(chosen.ndim(), 0), end = chosen.shape();
    begin.back() = j;
    end.back() = j + 1;
    const mx::array one = mx::slice(chosen, begin, end);
    const mx::array top = at_chosen(logits, one);
    const mx::array far = (top - logits) / mx::maximum(mx::abs(logits), top) >
        reference::number(2 * spec.jitter, logits);
    const mx::array near = mx::logical_and(left, mx::logical_not(far));
    const mx::array exponents =
        reference::exp(mx::where(near, logits - top, zero));
    weights.push_back(
        reference::number(1, logits) /
        mx::sum(mx::where(near, exponents, zero), -1, true));
    left = mx::logical_and(left, mx::not_equal(places, one));
  }
  return mx::concatenate(weights, -1);
}

} // namespace

mx::array weights_of(
    const mx::array& logits,
    const RouterSpec& spec,
    const std::optional<mx::array>& bias,
    const mx::array& chosen) {
  using Score = RouterSpec::Score;
  const mx::array x =
      logits.dtype() == mx::float64 ? logits : mx::astype(logits, mx::float32);
  mx::array weights = spec.score == Score::Softmax
      ? at_chosen(reference::softmax(x), chosen)
      : spec.score == Score::Sigmoid ? reference::sigmoid(at_chosen(x, chosen))
      : spec.score == Score::ChosenSoftmax
      ? reference::softmax(at_chosen(x, chosen))
      : sparse_weights(x, spec, chosen);
  if (spec.weight_from_biased && bias) {
    weights = weights + mx::astype(mx::take(*bias, chosen), x.dtype());
  }
  if (spec.renormalise) {
    const mx::array sum = mx::sum(weights, -1, true);
    const mx::array epsilon = reference::number(spec.epsilon, sum);
    weights = weights /
        (spec.epsilon_is_floor ? mx::maximum(sum, epsilon) : sum + epsilon);
  }
  return weights * reference::number(spec.scale, weights);
}

std::pair<mx::array, mx::array> route(
    const mx::array& logits,
    const RouterSpec& spec,
    const std::optional<mx::array>& bias) {
  constexpr const char* kOp = "route";
  if (logits.ndim() == 0 || !quant::is_float(logits.dtype())) {
    invalid(
        kOp,
        "logits must be (..., experts) of float32, float16 or bfloat16, got ",
        logits.shape(),
        " of ",
        logits.dtype(),
        '.');
  }
  const int experts = logits.shape(-1);
  if (const auto why = why_not_a_router(spec, experts); !why.empty()) {
    invalid(kOp, why, '.');
  }
  if (bias &&
      (bias->shape() != mx::Shape{experts} ||
       !quant::is_float(bias->dtype()))) {
    invalid(
        kOp,
        "bias must be (",
        experts,
        ") float, got ",
        bias->shape(),
        " of ",
        bias->dtype(),
        '.');
  }
  // Without an axis of tokens there is one token.
  const bool one = logits.ndim() == 1;
  Arrays inputs = {one ? mx::expand_dims(logits, 0) : logits};
  if (bias) {
    inputs.push_back(*bias);
  }
  const Arrays out = routed(inputs, spec);
  return one ? std::pair(mx::squeeze(out[0], 0), mx::squeeze(out[1], 0))
             : std::pair(out[0], out[1]);
}

} // namespace zmlx::moe
