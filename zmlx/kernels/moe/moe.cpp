// SPDX-License-Identifier: MIT
// References, cases and specs of the mixtures of experts.
#include "zmlx/kernels/moe/moe.h"

#include "zmlx/authoring/registry.h"
#include "zmlx/kernels/common/packed_spec.h"
#include "zmlx/kernels/common/reference.h"
#include "zmlx/kernels/moe/combine_spec.h"
#include "zmlx/kernels/moe/gating_spec.h"
#include "zmlx/kernels/moe/route_spec.h"

namespace zmlx::kernels {
namespace {

using reference::whole;

// Inputs stand as x, then words, scales and biases of each matrix, then (moe)
// the expert bias.
quant::QuantizedArrays
matrix_at(const Arrays& in, size_t first, const Params& params) {
  return {
      in[first],
      in[first + 1],
      in[first + 2],
      whole(params, "bits"),
      whole(params, "group_size")};
}

moe::ExpertArrays
experts_at(const Arrays& in, size_t first, const Params& params) {
  return {
      matrix_at(in, first, params),
      matrix_at(in, first + 3, params),
      matrix_at(in, first + 6, params)};
}

moe::RouterSpec router_of(const Params& params) {
  moe::RouterSpec router;
  router.score = whole(params, "sigmoid") != 0
      ? moe::RouterSpec::Score::Sigmoid
      : moe::RouterSpec::Score::Softmax;
  router.top_k = whole(params, "top_k");
  router.epsilon = 1e-6f;
  router.scale = 1.5f;
  return router;
}

Arrays run_moe(const Arrays& in, const Params& params) {
  return {moe::moe_mlp(
      in[0],
      router_of(params),
      matrix_at(in, 1, params),
      in[13],
      experts_at(in, 4, params))};
}

moe::Activation activation_of(const Params& params) {
  return {static_cast<moe::Activation::Kind>(whole(params, "activation"))};
}

Arrays run_gated(const Arrays& in, const Params& params) {
  auto weights = experts_at(in, 1, params);
  weights.activation = activation_of(params);
  return {moe::gated_mlp(in[0], weights)};
}

Arrays composed_gated(const Arrays& in, const Params& params) {
  const auto product = [&](const mx::array& x, size_t first) {
    return reference::quantized_matmul(
        x, in[first], in[first + 1], in[first + 2], params);
  };
  const mx::array gate = product(in[0], 1);
  return {product(
      moe::composed_activation(activation_of(params), &gate, product(in[0], 4)),
      7)};
}

// x (tokens, k or 1, 1, cols) times each token's matrices.
mx::array product_of_chosen(
    const mx::array& x,
    const Arrays& in,
    size_t first,
    const mx::array& chosen,
    const Params& params) {
  if (x.dtype() == mx::float64) {
    const mx::array dense =
        reference::dequantized(in[first], in[first + 1], in[first + 2], params);
    return mx::matmul(x, mx::swapaxes(mx::take(dense, chosen, 0), -1, -2));
  }
  return mx::gather_qmm(
      x,
      in[first],
      mx::astype(in[first + 1], x.dtype()),
      mx::astype(in[first + 2], x.dtype()),
      std::nullopt,
      chosen,
      true,
      whole(params, "group_size"),
      whole(params, "bits"));
}

// As mlx_lm's models/lfm2_moe.py has it.
Arrays composed_moe(const Arrays& in, const Params& params) {
  const auto router = router_of(params);
  const mx::array logits =
      reference::quantized_matmul(in[0], in[1], in[2], in[3], params);
  const mx::array scores = router.score == moe::RouterSpec::Score::Sigmoid
      ? reference::sigmoid(logits)
      : reference::softmax(logits);
  const mx::array order = mx::argpartition(
      mx::negative(scores + mx::astype(in[13], scores.dtype())),
      router.top_k - 1,
      -1);
  const int tokens = in[0].shape(0);
  const mx::array chosen =
      mx::stop_gradient(mx::slice(order, {0, 0}, {tokens, router.top_k}));
  mx::array weights = mx::take_along_axis(scores, chosen, -1);
  const mx::array sum = mx::sum(weights, -1, true);
  weights = weights / (sum + reference::number(router.epsilon, sum)) *
      reference::number(router.scale, sum);
  const mx::array x = mx::expand_dims(in[0], {1, 2});
  const mx::array gated =
      reference::silu(product_of_chosen(x, in, 4, chosen, params)) *
      product_of_chosen(x, in, 7, chosen, params);
  const mx::array each =
      mx::squeeze(product_of_chosen(gated, in, 10, chosen, params), 2);
  return {mx::sum(each * mx::expand_dims(weights, -1), 1)};
}

// Weights of the chosen experts and of the router, once each.
Traffic moe_traffic(const Arrays& in, int top_k) {
  Traffic traffic;
  const double experts = in[4].shape(0), tokens = in[0].shape(0);
  const double read = std::min(experts, tokens * top_k) / experts;
  for (size_t i = 0; i < in.size(); ++i) {
    traffic.bytes +=
        static_cast<double>(in[i].nbytes()) * (i >= 4 && i < 13 ? read : 1);
  }
  const double dim = in[0].shape(-1), hidden = in[4].shape(-2);
  traffic.flops = tokens * (2 * dim * experts + top_k * 6 * dim * hidden);
  return traffic;
}

KernelSpec gated_spec() {
  const auto with = [](moe::Activation::Kind kind) {
    return Params{
        {"bits", 4},
        {"group_size", 64},
        {"activation", static_cast<double>(kind)}};
  };
  using Kind = moe::Activation::Kind;
  const Params silu = with(Kind::Silu);
  const auto shapes = [](int rows, int dim, int hidden) {
    return std::vector<mx::Shape>{
        {rows, dim}, {hidden, dim}, {hidden, dim}, {dim, hidden}};
  };
  auto params = packed::packing_params();
  params.push_back(
      {"activation",
       "0: silu, 1: gelu by tanh, 2: gelu, 3: relu squared, 4: clamped SwiGLU"});
  std::vector<KernelCase> cases = cases_of(
      {shapes(0, 128, 64), shapes(1, 128, 320), shapes(7, 64, 192)}, silu);
  // On a GPU many rows go through MLX's products: in 16 bits with its rounding.
  cases.push_back({mx::float32, shapes(20, 64, 192), silu});
  for (const auto kind :
       {Kind::GeluTanh, Kind::Gelu, Kind::Relu2, Kind::ClampedSwiglu}) {
    cases.push_back({mx::float32, shapes(3, 64, 192), with(kind)});
  }
  return {
      .family = "moe",
      .name = "gated_mlp",
      .summary = "down(activation(gate x, up x)) with packed weights",
      .call = "zmlx::moe::gated_mlp(x, {gate, up, down})",
      .inputs = packed::with_matrices(
          {{"x", "(..., dim) float"}},
          {{"gate", "(hidden, dim)"},
           {"up", "(hidden, dim)"},
           {"down", "(dim, hidden)"}}),
      .outputs =
          {{"out",
            "x's shape and type; float32 inside, but x's type for 8 rows and "
            "more on a GPU"}},
      .params = std::move(params),
      .run = run_gated,
      .reference = composed_gated,
      .cases = std::move(cases),
      .bench =
          {{mx::float32, shapes(1, 2048, 7168), silu},
           {mx::float32, shapes(16, 1024, 2048), silu}},
      .make_inputs =
          [](const KernelCase& one, uint64_t seed) {
            return packed::inputs_of(one, 1, 3, seed);
          },
      .terms =
          [](const KernelCase& one) {
            return int64_t{one.shapes[1][0]} + one.shapes[1][1];
          },
      // An infinity times a weight of zero, which may be a rounding error here.
      .specials = Specials::kNan,
  };
}

KernelSpec moe_spec() {
  const auto case_of = [](mx::Dtype dtype,
                          int rows,
                          int dim,
                          int hidden,
                          int experts,
                          int top_k,
                          bool sigmoid) {
    return KernelCase{
        dtype,
        {{rows, dim},
         {experts, dim},
         {experts, hidden, dim},
         {experts, hidden, dim},
         {experts, dim, hidden},
         {experts}},
        {{"bits", 4},
         {"group_size", 64},
         {"top_k", top_k},
         {"sigmoid", sigmoid}}};
  };
  std::vector<KernelCase> cases;
  for (mx::Dtype dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    cases.push_back(case_of(dtype, 0, 64, 64, 4, 2, true));
    cases.push_back(case_of(dtype, 1, 128, 192, 8, 3, true));
    cases.push_back(case_of(dtype, 40, 128, 192, 8, 3, true));
    cases.push_back(case_of(dtype, 7, 64, 128, 5, 5, false));
  }
  auto inputs = packed::with_matrices(
      {{"x", "(..., dim) float"}},
      {{"router", "(experts, dim)"},
       {"gate", "(experts, hidden, dim)"},
       {"up", "(experts, hidden, dim)"},
       {"down", "(experts, dim, hidden)"}});
  inputs.push_back({"expert_bias", "(experts) float, or none", false});
  auto params = packed::packing_params();
  params.push_back({"top_k", "experts a token, 1 to all"});
  params.push_back({"sigmoid", "1: scores are sigmoids, 0: a softmax"});
  return {
      .family = "moe",
      .name = "moe_mlp",
      .summary = "Router, gated experts and their weighted sum",
      .call =
          "zmlx::moe::moe_mlp(x, router, router_weight, expert_bias, experts)",
      .inputs = std::move(inputs),
      .outputs =
          {{"out",
            "x's shape and type; float32 inside, but x's type for many rows on a "
            "GPU"}},
      .params = std::move(params),
      .run = run_moe,
      .reference = composed_moe,
      .cases = std::move(cases),
      .bench =
          {case_of(mx::float32, 1, 2048, 1792, 32, 4, true),
           case_of(mx::float32, 32, 1024, 512, 16, 4, true)},
      .make_inputs =
          [](const KernelCase& one, uint64_t seed) {
            return packed::inputs_of(one, 1, 4, seed);
          },
      .traffic = [](const Arrays& in,
                    const Arrays&) { return moe_traffic(in, 4); },
      .terms =
          [](const KernelCase& one) {
            return int64_t{one.shapes[2][1]} + one.shapes[2][2];
          },
      .specials = Specials::kNan, // as in gated_mlp
  };
}

} // namespace

void register_moe(Registry& registry) {
  registry.add(route_spec());
  registry.add(moe_spec());
  registry.add(gated_spec());
  register_combine(registry);
  register_gating(registry);
}

} // namespace zmlx::kernels
