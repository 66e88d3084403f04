// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/moe_mlp.h"

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/composed_transforms.h"
#include "zmlx/kernels/common/dense.h"
#include "zmlx/kernels/common/multiply_rows.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/kernels/common/vector_math.h"
#include "zmlx/kernels/moe/experts.h"
#include "zmlx/kernels/moe/experts_kernel.h"
#include "zmlx/kernels/moe/product.h"
#include "zmlx/runtime/cpu_op.h"

namespace zmlx::moe {
namespace {

using Arrays = std::vector<mx::array>;

/// Where the arrays of a projection stand among an operation's inputs.
struct Place {
  int first = 0, bias = -1;
  int bits = 0, group_size = 0; // none: not quantised
  cpu::Scheme scheme = cpu::Scheme::Affine;
  /// In blocks; then they are no inputs, for their rows may not be there, nor
  /// are they read.
  std::optional<quant::QuantizedArrays> held = std::nullopt;

  /// Appends the arrays.
  Place(const Projection& projection, Arrays& inputs)
      : first(static_cast<int>(inputs.size())) {
    if (const auto* w =
            std::get_if<quant::QuantizedArrays>(&projection.weight)) {
      bits = w->bits;
      group_size = w->group_size;
      scheme = w->scheme;
      if (w->blocks) {
        held = *w;
      } else {
        inputs.insert(inputs.end(), {w->words, w->scales, w->biases});
      }
    } else {
      inputs.push_back(std::get<mx::array>(projection.weight));
    }
    if (projection.bias) {
      bias = static_cast<int>(inputs.size());
      inputs.push_back(*projection.bias);
    }
  }

  quant::QuantizedArrays quantized(const Arrays& in) const {
    if (held) {
      return *held;
    }
    return {in[first], in[first + 1], in[first + 2], bits, group_size, scheme};
  }
  cpu::ExpertMatrix view(const Arrays& in) const {
    cpu::ExpertMatrix matrix;
    if (group_size != 0) {
      matrix.weight = quant::view(quantized(in));
    } else {
      matrix.weight = quant::dense_view(in[first]);
    }
    if (bias >= 0) {
      // One row for an expert; a layer's bias has one axis.
      const auto& b = in[bias];
      matrix.bias = quant::dense_view(b);
    }
    return matrix;
  }
  void add_differentiable(std::vector<int>& places) const {
    if (group_size == 0) {
      places.push_back(first);
    }
    if (bias >= 0) {
      places.push_back(bias);
    }
  }

  /// As product() of Places' arrays, and the bias.
  mx::array composed(
      const mx::array& x,
      const Arrays& in,
      const std::optional<ChosenMatrices>& chosen) const {
    const mx::array y = product(
        x,
        group_size == 0 ? quant::AnyArrays(in[first])
                        : quant::AnyArrays(quantized(in)),
        chosen);
    if (bias < 0) {
      return y;
    }
    const mx::array b = mx::astype(in[bias], y.dtype());
    return y + (chosen ? mx::expand_dims(mx::take(b, chosen->ids, 0), -2) : b);
  }
};

struct ExpertPlaces {
  std::optional<Place> gate;
  Place up, down;
  Activation activation;

  ExpertPlaces(const ExpertArrays& experts, Arrays& inputs)
      : gate(
            experts.gate ? std::optional(Place(*experts.gate, inputs))
                         : std::nullopt),
        up(experts.up, inputs),
        down(experts.down, inputs),
        activation(experts.activation) {}

  cpu::Experts view(const Arrays& in) const {
    cpu::Experts experts{{}, up.view(in), down.view(in), activation};
    if (gate) {
      experts.gate = gate->view(in);
    }
    return experts;
  }
  void add_differentiable(std::vector<int>& places) const {
    if (gate) {
      gate->add_differentiable(places);
    }
    up.add_differentiable(places);
    down.add_differentiable(places);
  }
  mx::array composed(
      const mx::array& x,
      const Arrays& in,
      const std::optional<ChosenMatrices>& chosen) const {
    std::optional<mx::array> gated;
    if (gate) {
      gated = gate->composed(x, in, chosen);
    }
    const mx::array hidden = composed_activation(
        activation, gated ? &*gated : nullptr, up.composed(x, in, chosen));
    return down.composed(hidden, in, chosen);
  }
};

/// Checks a matrix, or a stack of `experts` of them (none: 0), and returns it
/// as kernels take it.
Projection checked(
    const char* op,
    const char* name,
    const Projection& projection,
    int experts,
    int rows,
    int cols) {
  Projection good = projection;
  const auto* packed = std::get_if<quant::QuantizedArrays>(&good.weight);
  if (packed) {
    if (const auto why = quant::why_unsupported(*packed); !why.empty()) {
      invalid(op, why, '.');
    }
  } else {
    auto& weight = std::get<mx::array>(good.weight);
    if (!quant::is_float(weight.dtype())) {
      invalid(
          op,
          name,
          " must be quantised or float32, float16 or bfloat16, got ",
          weight.dtype(),
          '.');
    }
    if (!weight.is_available() || !weight.flags().row_contiguous) {
      weight = mx::contiguous(weight);
    }
  }
  const mx::array& values =
      packed ? packed->words : std::get<mx::array>(good.weight);
  mx::Shape shape = {rows, cols}, bias_shape = {rows};
  if (experts > 0) {
    shape.insert(shape.begin(), experts);
    bias_shape.insert(bias_shape.begin(), experts);
  }
  mx::Shape got = values.shape();
  if (packed && !got.empty()) {
    got.back() = quant::cols_of(good.weight);
  }
  if (got != shape) {
    invalid(op, name, " must be ", shape, ", got ", got, '.');
  }
  if (good.bias) {
    if (good.bias->shape() != bias_shape ||
        !quant::is_float(good.bias->dtype())) {
      invalid(
          op,
          "the bias of ",
          name,
          " must be ",
          bias_shape,
          " float, got ",
          good.bias->shape(),
          " of ",
          good.bias->dtype(),
          '.');
    }
    good.bias = mx::contiguous(
        experts > 0 ? *good.bias : mx::expand_dims(*good.bias, 0));
  }
  return good;
}

/// The weight of a projection as an array, for its axes.
const mx::array& stored(const Projection& projection) {
  const auto* packed = std::get_if<quant::QuantizedArrays>(&projection.weight);
  return packed ? packed->words : std::get<mx::array>(projection.weight);
}

ExpertArrays checked(
    const char* op,
    const mx::array& x,
    const ExpertArrays& weights,
    bool stacked) {
  const size_t axes = stacked ? 3 : 2;
  if (stored(weights.up).ndim() != axes) {
    invalid(
        op,
        "weights must have ",
        axes,
        " axes, got ",
        stored(weights.up).shape(),
        '.');
  }
  if (!weights.gate &&
      weights.activation.kind == Activation::Kind::ClampedSwiglu) {
    invalid(op, "the clamped activation must have a gate, got none.");
  }
  if (!quant::is_float(x.dtype()) || x.ndim() == 0) {
    invalid(
        op,
        "x must be (..., dim) of float32, float16 or bfloat16, got ",
        x.shape(),
        " of ",
        x.dtype(),
        '.');
  }
  const int experts = stacked ? stored(weights.up).shape(0) : 0;
  const int dim = x.shape(-1), hidden = quant::rows_of(weights.up.weight);
  ExpertArrays good = weights;
  if (good.gate) {
    good.gate = checked(op, "gate", *weights.gate, experts, hidden, dim);
  }
  good.up = checked(op, "up", weights.up, experts, hidden, dim);
  good.down = checked(op, "down", weights.down, experts, dim, hidden);
  return good;
}

/// Router logits of every token, (tokens, experts).
std::vector<float> router_logits(
    ThreadTeam& team,
    const cpu::ExpertMatrix& router,
    const std::vector<const float*>& x) {
  const auto experts = static_cast<size_t>(router.rows());
  std::vector<float> logits(x.size() * experts);
  std::vector<float*> out;
  for (size_t i = 0; i < x.size(); ++i) {
    out.push_back(logits.data() + i * experts);
  }
  std::visit(
      [&](const auto& w) { cpu::multiply_rows(team, w, x, out); },
      router.weight);
  if (router.bias.values) {
    std::vector<float> bias(experts);
    cpu::copy_row(router.bias, 0, bias.data());
    for (float* row : out) {
      cpu::axpy(1.0f, bias.data(), row, router.rows());
    }
  }
  return logits;
}

/// x times each token's only weight, which then is one.
std::vector<float>
scaled(std::vector<const float*>& x, std::vector<float>& weights, int64_t dim) {
  std::vector<float> values(x.size() * static_cast<size_t>(dim));
  for (size_t t = 0; t < x.size(); ++t) {
    float* to = values.data() + t * static_cast<size_t>(dim);
    cpu::axpy(weights[t], x[t], to, dim);
    x[t] = to;
    weights[t] = 1;
  }
  return values;
}

/// Whether one is under a transformation of MLX.
bool traced(const Arrays& in) {
  return std::any_of(
      in.begin(), in.end(), [](const mx::array& x) { return x.is_tracer(); });
}

struct MoePlaces {
  RouterSpec spec;
  int count; // of experts
  Place router;
  ExpertPlaces experts;
  int expert_bias = -1;

  void run(const Arrays& in, Arrays& out) const {
    RowsInOut rows(in[0], out[0]);
    if (rows.x.empty()) {
      return;
    }
    const auto team = thread_team();
    const auto logits = router_logits(*team, router.view(in), rows.x);
    std::vector<float> scratch;
    const float* bias =
        expert_bias < 0 ? nullptr : RowReader(in[expert_bias]).row(0, scratch);
    const size_t pairs = rows.x.size() * spec.top_k;
    std::vector<int> ids(pairs);
    std::vector<float> weights(pairs);
    for (size_t t = 0; t < rows.x.size(); ++t) {
      route(
          spec,
          logits.data() + t * count,
          bias,
          count,
          ids.data() + t * spec.top_k,
          weights.data() + t * spec.top_k);
    }
    std::vector<float> inputs;
    if (spec.weight_on_input) {
      inputs = scaled(rows.x, weights, in[0].shape(-1));
    }
    cpu::run_experts(
        *team,
        experts.view(in),
        {ids.data(), weights.data(), spec.top_k, count},
        rows.x,
        rows.y);
    rows.store();
  }

  mx::array composed(const Arrays& in) const {
    const mx::array& x = in[0];
    const mx::array logits = router.composed(x, in, std::nullopt);
    std::optional<mx::array> bias;
    if (expert_bias >= 0) {
      bias = in[expert_bias];
    }
    const auto [weights, ids] = route(logits, spec, bias);
    const mx::array chosen = mx::stop_gradient(ids);
    const mx::array w =
        mx::expand_dims(mx::astype(weights, x.dtype()), -1); // (..., k, 1)
    const mx::array rows = spec.weight_on_input ? x * mx::squeeze(w, -1) : x;
    const mx::array y = outputs(rows, in, chosen);
    return mx::sum(spec.weight_on_input ? y : y * w, -2);
  }

  /// On a GPU: few tokens by kernels of ours, which have no gradients.
  mx::array on_gpu(const Arrays& in, const ExpertArrays& weights) const {
    const mx::array& x = in[0];
    const int64_t rows = static_cast<int64_t>(x.size()) / x.shape(-1);
    if (traced(in) || rows == 0 || spec.weight_on_input ||
        worth_sorting(rows * spec.top_k, count) || !fits_kernels(weights)) {
      return composed(in);
    }
    const mx::array logits = router.composed(x, in, std::nullopt);
    const auto flat = [rows](const mx::array& a) {
      return mx::reshape(a, {static_cast<int>(rows), a.shape(-1)});
    };
    std::optional<mx::array> bias;
    if (expert_bias >= 0) {
      bias = in[expert_bias];
    }
    const auto [by, ids] = route(flat(logits), spec, bias);
    return mx::reshape(
        experts_by_kernels(flat(x), weights, Chosen{ids, by}), x.shape());
  }

 private:
  /// Of each token's experts, (..., top_k, dim).
  mx::array
  outputs(const mx::array& x, const Arrays& in, const mx::array& chosen) const {
    if (!worth_sorting(static_cast<int64_t>(chosen.size()), count)) {
      return mx::squeeze(
          experts.composed(
              mx::expand_dims(x, {-2, -3}), in, ChosenMatrices{chosen}),
          -2);
    }
    const int dim = x.shape(-1);
    const auto sorted = sort_pairs(
        mx::reshape(x, {-1, dim}), mx::reshape(chosen, {-1, spec.top_k}));
    const auto y =
        experts.composed(sorted.rows, in, ChosenMatrices{sorted.ids, true});
    mx::Shape shape = chosen.shape();
    shape.push_back(dim);
    return mx::reshape(mx::take(y, sorted.back, 0), shape);
  }
};

bool on_a_gpu() {
  return mx::default_device() == mx::Device(mx::Device::gpu);
}

} // namespace

mx::array moe_mlp(
    const mx::array& x,
    const RouterSpec& spec,
    const Projection& router,
    const std::optional<mx::array>& expert_bias,
    const ExpertArrays& experts) {
  constexpr const char* kOp = "moe_mlp";
  const auto weights = checked(kOp, x, experts, true);
  const int count = stored(weights.up).shape(0);
  if (const auto why = why_not_a_router(spec, count); !why.empty()) {
    invalid(kOp, why, '.');
  }
  if (spec.weight_on_input && spec.top_k != 1) {
    invalid(
        kOp,
        "top_k must be 1 where weights multiply the input, got ",
        spec.top_k,
        '.');
  }
  if (expert_bias &&
      (expert_bias->shape() != mx::Shape{count} ||
       !quant::is_float(expert_bias->dtype()))) {
    invalid(
        kOp,
        "the expert bias must be (",
        count,
        ") float, got ",
        expert_bias->shape(),
        '.');
  }
  Arrays inputs = {x};
  const Place router_place(
      checked(kOp, "the router", router, 0, count, x.shape(-1)), inputs);
  MoePlaces places{spec, count, router_place, ExpertPlaces(weights, inputs)};
  std::vector<int> differentiable = {0};
  places.router.add_differentiable(differentiable);
  places.experts.add_differentiable(differentiable);
  if (expert_bias) {
    places.expert_bias = static_cast<int>(inputs.size());
    differentiable.push_back(places.expert_bias);
    inputs.push_back(*expert_bias);
  }
  if (on_a_gpu()) {
    return places.on_gpu(inputs, weights);
  }
  return differentiable_op(
      {kOp,
       [places](const Arrays& in) {
         return cpu_op(
             "MoeMlpCpu",
             in,
             {{in[0].shape(), in[0].dtype()}},
             [places](const Arrays& given, Arrays& out) {
               places.run(given, out);
             });
       },
       [places](const Arrays& in) { return Arrays{places.composed(in)}; },
       differentiable},
      inputs)[0];
}

namespace {

// MLX's own products read a matrix once for all rows, from here on.
constexpr int64_t kFewRows = 8;

mx::array mlp_on_gpu(
    const Arrays& in,
    const ExpertArrays& layer,
    const ExpertPlaces& places) {
  const mx::array& x = in[0];
  const int64_t rows = static_cast<int64_t>(x.size()) / x.shape(-1);
  if (rows == 0 || rows >= kFewRows || traced(in) || !fits_kernels(layer)) {
    return places.composed(x, in, std::nullopt);
  }
  const auto flat = mx::reshape(x, {static_cast<int>(rows), x.shape(-1)});
  return mx::reshape(experts_by_kernels(flat, layer, std::nullopt), x.shape());
}

} // namespace

mx::array gated_mlp(const mx::array& x, const ExpertArrays& weights) {
  constexpr const char* kOp = "gated_mlp";
  Arrays inputs = {x};
  const auto layer = checked(kOp, x, weights, false);
  const ExpertPlaces places(layer, inputs);
  std::vector<int> differentiable = {0};
  places.add_differentiable(differentiable);
  if (on_a_gpu()) {
    return mlp_on_gpu(inputs, layer, places);
  }
  return differentiable_op(
      {kOp,
       [places](const Arrays& in) {
         return cpu_op(
             "GatedMlpCpu",
             in,
             {{in[0].shape(), in[0].dtype()}},
             [places](const Arrays& given, Arrays& out) {
               RowsInOut rows(given[0], out[0]);
               const std::vector<int> ids(rows.x.size(), 0);
               const std::vector<float> ones(rows.x.size(), 1.0f);
               cpu::run_experts(
                   *thread_team(),
                   places.view(given),
                   {ids.data(), ones.data(), 1, 1},
                   rows.x,
                   rows.y);
               rows.store();
             });
       },
       [places](const Arrays& in) {
         return Arrays{places.composed(in[0], in, std::nullopt)};
       },
       differentiable},
      inputs)[0];
}

} // namespace zmlx::moe
