// SPDX-License-Identifier: MIT
// What patching runs: routers, experts, and products with weights as modules
// hold them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <map>
#include <string>
#include <utility>

#include "python/bindings/bind.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/rows_of_blocks.h"
#include "zmlx/kernels/dense/dense.h"
#include "zmlx/kernels/moe/moe.h"
#include "zmlx/kernels/norms/norms.h"
#include "zmlx/kernels/quant/quantized_matmul.h"
#include "zmlx/kernels/softmax/softmax.h"

namespace {

namespace moe = zmlx::moe;
using zmlx::moe::Activation;
using zmlx::moe::ExpertArrays;
using zmlx::moe::Projection;
using zmlx::moe::RouterSpec;
using OptionalArray = std::optional<mx::array>;

/// The value of a name; throws ValueError "[op] what must be a, b or c, got d."
template <class T>
T named(
    const std::map<std::string, T>& names,
    const char* op,
    const char* what,
    const std::string& name) {
  const auto found = names.find(name);
  if (found == names.end()) {
    std::string known;
    for (const auto& [one, value] : names) {
      known += (known.empty() ? "" : ", ") + one;
    }
    zmlx::invalid(op, what, " must be one of ", known, ", got ", name, '.');
  }
  return found->second;
}

RouterSpec router_spec(
    const std::string& score,
    int top_k,
    bool select_on_logits,
    bool weight_from_biased,
    int groups,
    int chosen_groups,
    const std::string& group_score,
    bool renormalise,
    float epsilon,
    bool epsilon_is_floor,
    float scale,
    bool weight_on_input,
    float jitter) {
  using Score = RouterSpec::Score;
  using Group = RouterSpec::GroupScore;
  return {
      .score = named<Score>(
          {{"softmax", Score::Softmax},
           {"sigmoid", Score::Sigmoid},
           {"chosen_softmax", Score::ChosenSoftmax},
           {"sparse_mixer", Score::SparseMixer}},
          "route",
          "score",
          score),
      .top_k = top_k,
      .select_on_logits = select_on_logits,
      .weight_from_biased = weight_from_biased,
      .groups = groups,
      .chosen_groups = chosen_groups,
      .group_score = named<Group>(
          {{"top_two", Group::TopTwo}, {"largest", Group::Largest}},
          "route",
          "group_score",
          group_score),
      .renormalise = renormalise,
      .epsilon = epsilon,
      .epsilon_is_floor = epsilon_is_floor,
      .scale = scale,
      .weight_on_input = weight_on_input,
      .jitter = jitter};
}

Projection projection(
    const mx::array& weight,
    const OptionalArray& scales,
    const OptionalArray& biases,
    int bits,
    int group_size,
    const std::string& mode,
    const OptionalArray& bias) {
  if (!scales) {
    return {weight, bias};
  }
  const auto scheme = zmlx::quant::scheme_named(mode);
  if (!scheme || (mode == "affine") != biases.has_value()) {
    zmlx::invalid(
        "projection",
        "mode must be affine with biases, or mxfp4, nvfp4 or mxfp8 without, "
        "got ",
        mode,
        '.');
  }
  // Not the module's own arrays where these unpack themselves: what somebody
  // reads must be free to go again.
  using zmlx::unevaluated;
  zmlx::quant::QuantizedArrays packed{
      unevaluated(weight),
      unevaluated(*scales),
      unevaluated(biases ? *biases : *scales),
      bits,
      group_size,
      *scheme};
  if (const auto why = zmlx::quant::why_unsupported(packed); !why.empty()) {
    zmlx::invalid("projection", why, '.');
  }
  packed.blocks = zmlx::quant::blocks_behind(weight);
  return {std::move(packed), bias};
}

ExpertArrays mlp(
    const std::optional<Projection>& gate,
    const Projection& up,
    const Projection& down,
    const std::string& activation,
    float alpha,
    float limit) {
  using Kind = Activation::Kind;
  const auto kind = named<Kind>(
      {{"silu", Kind::Silu},
       {"gelu_tanh", Kind::GeluTanh},
       {"gelu", Kind::Gelu},
       {"relu2", Kind::Relu2},
       {"clamped_swiglu", Kind::ClampedSwiglu}},
      "mlp",
      "activation",
      activation);
  return {gate, up, down, {kind, alpha, limit}};
}

/// All of a block but its input.
struct Block {
  RouterSpec spec;
  Projection router;
  OptionalArray expert_bias;
  ExpertArrays experts;
};

mx::array linear(const mx::array& x, const Projection& w) {
  const auto* packed = std::get_if<zmlx::quant::QuantizedArrays>(&w.weight);
  return packed
      ? zmlx::quant::quantized_matmul(x, *packed, w.bias)
      : zmlx::dense::dense_matmul(x, std::get<mx::array>(w.weight), w.bias);
}

mx::array layer_norm(
    const mx::array& x,
    const OptionalArray& weight,
    const OptionalArray& bias,
    float eps) {
  if (!weight && !bias) {
    return zmlx::norms::layer_norm_no_weight(x, eps);
  }
  const mx::array& one = weight ? *weight : *bias;
  return zmlx::norms::layer_norm(
      x,
      weight ? *weight : mx::ones_like(one),
      bias ? *bias : mx::zeros_like(one),
      eps);
}

/// An __init__ that takes what a function takes.
template <class T, class... Arguments>
auto made_by(T (*make)(Arguments...)) {
  return [make](T* self, Arguments... arguments) {
    new (self) T(make(arguments...));
  };
}

} // namespace

void bind_moe(nb::module_& m) {
  nb::class_<RouterSpec>(m, "RouterSpec", "A router as data.")
      .def(
          "__init__",
          made_by(&router_spec),
          nb::kw_only(),
          nb::arg("score") = "softmax",
          nb::arg("top_k") = 1,
          nb::arg("select_on_logits") = false,
          nb::arg("weight_from_biased") = false,
          nb::arg("groups") = 1,
          nb::arg("chosen_groups") = 1,
          nb::arg("group_score") = "top_two",
          nb::arg("renormalise") = true,
          nb::arg("epsilon") = 0.0f,
          nb::arg("epsilon_is_floor") = false,
          nb::arg("scale") = 1.0f,
          nb::arg("weight_on_input") = false,
          nb::arg("jitter") = 0.01f)
      .def_ro("top_k", &RouterSpec::top_k);
  nb::class_<Projection>(m, "Projection", "A matrix, or a stack of them.")
      .def(
          "__init__",
          made_by(&projection),
          nb::arg("weight"),
          nb::arg("scales") = nb::none(),
          nb::arg("biases") = nb::none(),
          nb::arg("bits") = 0,
          nb::arg("group_size") = 0,
          nb::arg("mode") = "affine",
          nb::arg("bias") = nb::none());
  nb::class_<ExpertArrays>(m, "Mlp", "Projections and their activation.")
      .def(
          "__init__",
          made_by(&mlp),
          nb::arg("gate").none(),
          nb::arg("up"),
          nb::arg("down"),
          nb::arg("activation") = "silu",
          nb::arg("alpha") = 1.702f,
          nb::arg("limit") = 7.0f);
  nb::class_<Block>(m, "MoeBlock", "A router and its experts.")
      .def(
          "__init__",
          [](Block* self,
             const RouterSpec& spec,
             const Projection& router,
             const OptionalArray& expert_bias,
             const ExpertArrays& experts) {
            new (self) Block{spec, router, expert_bias, experts};
          },
          nb::arg("spec"),
          nb::arg("router"),
          nb::arg("expert_bias").none(),
          nb::arg("experts"));
  m.def(
      "moe_mlp",
      [](const mx::array& x, const Block& block) {
        return moe::moe_mlp(
            x, block.spec, block.router, block.expert_bias, block.experts);
      },
      nb::arg("x"),
      nb::arg("block"));
  m.def("gated_mlp", &moe::gated_mlp, nb::arg("x"), nb::arg("mlp"));
  m.def("linear", &linear, nb::arg("x"), nb::arg("projection"));
  // Norms and softmax as modules call them.
  m.def(
      "rms_norm",
      &zmlx::norms::rms_norm,
      nb::arg("x"),
      nb::arg("weight"),
      nb::arg("eps"));
  m.def(
      "add_rms_norm",
      &zmlx::norms::add_rms_norm,
      nb::arg("x"),
      nb::arg("residual"),
      nb::arg("weight"),
      nb::arg("eps"),
      "The norm of the sum, and the sum.");
  m.def(
      "layer_norm",
      &layer_norm,
      nb::arg("x"),
      nb::arg("weight").none(),
      nb::arg("bias").none(),
      nb::arg("eps"));
  m.def("softmax", &zmlx::softmax::softmax, nb::arg("x"));
  m.def(
      "route",
      [](const mx::array& logits,
         const RouterSpec& spec,
         const OptionalArray& bias) {
        nb::gil_scoped_release released;
        return moe::route(logits, spec, bias);
      },
      nb::arg("logits"),
      nb::arg("spec"),
      nb::arg("bias") = nb::none(),
      "Weights and experts of each token.");
}
