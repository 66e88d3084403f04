// SPDX-License-Identifier: MIT
// The norms over common/norm_rows.h, and their specs.
#include "zmlx/kernels/norms/norms.h"

#include "zmlx/authoring/registry.h"
#include "zmlx/kernels/common/norm_rows.h"
#include "zmlx/kernels/common/norm_spec.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::norms {

mx::array rms_norm_grad(
    const mx::array& x,
    const mx::array& weight,
    const mx::array& g,
    float eps) {
  return norm::rms_gradient("rms_norm_grad", x, weight, g, eps);
}

mx::array rms_norm_no_weight(const mx::array& x, float eps) {
  return norm::normalise(
      "rms_norm_no_weight", {.eps = eps}, x, std::nullopt, std::nullopt)[0];
}

mx::array layer_norm(
    const mx::array& x,
    const mx::array& gamma,
    const mx::array& beta,
    float eps) {
  return norm::normalise(
      "layer_norm",
      {.centred = true, .eps = eps},
      x,
      std::nullopt,
      gamma,
      beta)[0];
}

mx::array layer_norm_no_weight(const mx::array& x, float eps) {
  return norm::normalise(
      "layer_norm_no_weight",
      {.centred = true, .eps = eps},
      x,
      std::nullopt,
      std::nullopt)[0];
}

mx::array layer_norm_dropout(
    const mx::array& x,
    const mx::array& gamma,
    const mx::array& beta,
    double p,
    uint64_t seed,
    float eps) {
  return norm::normalise(
      "layer_norm_dropout",
      {.centred = true, .eps = eps, .dropout = p, .seed = seed},
      x,
      std::nullopt,
      gamma,
      beta)[0];
}

mx::array residual_rms_norm(
    const mx::array& x,
    const mx::array& residual,
    const mx::array& weight,
    float eps) {
  return norm::normalise(
      "residual_rms_norm", {.eps = eps}, x, residual, weight)[0];
}

std::pair<mx::array, mx::array> add_rms_norm(
    const mx::array& x,
    const mx::array& residual,
    const mx::array& weight,
    float eps) {
  const auto both = norm::normalise(
      "add_rms_norm", {.eps = eps, .returns_sum = true}, x, residual, weight);
  return {both[0], both[1]};
}

} // namespace zmlx::norms

namespace zmlx::kernels {
namespace {

float eps_of(const Params& params) {
  return static_cast<float>(params.at("eps"));
}

KernelSpec rms_norm_spec() {
  return norm::spec_of(
      {.family = "norms",
       .name = "rms_norm",
       .summary = "RMS normalisation over the last axis, scaled by weight",
       .python = "norms.rmsnorm",
       .inputs = {"x", "weight"},
       .weight = true},
      [](const Arrays& in, const Params& params) {
        return Arrays{norms::rms_norm(in[0], in[1], eps_of(params))};
      });
}

KernelSpec rms_norm_grad_spec() {
  const norm::Entry forward = {.inputs = {"x", "weight"}, .weight = true};
  KernelSpec spec = norm::spec_of(
      {.family = "norms",
       .name = "rms_norm_grad",
       .summary = "Gradient of rms_norm in x, from its cotangent g",
       .python = "norms.rmsnorm_grad",
       .inputs = {"x", "weight", "g"},
       .weight = true},
      [](const Arrays& in, const Params& params) {
        return Arrays{
            norms::rms_norm_grad(in[0], in[1], in[2], eps_of(params))};
      });
  spec.inputs[2].contract = "as x";
  for (auto* cases : {&spec.cases, &spec.bench}) {
    for (auto& one : *cases) {
      one.shapes[2] = one.shapes[0];
    }
  }
  spec.reference = [forward](const Arrays& in, const Params& params) {
    return mx::vjp(
               [&](const Arrays& x) {
                 return norm::reference(forward, {x[0], in[1]}, params);
               },
               {in[0]},
               {in[2]})
        .second;
  };
  return spec;
}

KernelSpec centred_spec(bool weighted) {
  return norm::spec_of(
      {.family = "norms",
       .name = weighted ? "layer_norm" : "layer_norm_no_weight",
       .summary = weighted
           ? "Layer normalisation over the last axis, scaled and shifted"
           : "Layer normalisation over the last axis",
       .python = weighted ? "norms.layernorm" : "",
       .inputs = weighted ? std::vector<std::string>{"x", "gamma", "beta"}
                          : std::vector<std::string>{"x"},
       .centred = true,
       .weight = weighted,
       .bias = weighted,
       .eps = 1e-5},
      [weighted](const Arrays& in, const Params& params) {
        return Arrays{
            weighted ? norms::layer_norm(in[0], in[1], in[2], eps_of(params))
                     : norms::layer_norm_no_weight(in[0], eps_of(params))};
      });
}

KernelSpec dropout_spec() {
  return norm::spec_of(
      {.family = "norms",
       .name = "layer_norm_dropout",
       .summary = "Layer normalisation, then dropout",
       .inputs = {"x", "gamma", "beta"},
       .centred = true,
       .weight = true,
       .bias = true,
       .dropout = true,
       .eps = 1e-5},
      [](const Arrays& in, const Params& params) {
        return Arrays{norms::layer_norm_dropout(
            in[0],
            in[1],
            in[2],
            params.at("p"),
            static_cast<uint64_t>(params.at("seed")),
            eps_of(params))};
      });
}

KernelSpec residual_spec(bool returns_sum) {
  return norm::spec_of(
      {.family = "norms",
       .name = returns_sum ? "add_rms_norm" : "residual_rms_norm",
       .summary = returns_sum
           ? "RMS normalisation of x + residual, and that sum"
           : "RMS normalisation of x + residual",
       .python = returns_sum ? "" : "norms.residual_rmsnorm",
       .inputs = {"x", "residual", "weight"},
       .residual = true,
       .weight = true,
       .returns_sum = returns_sum},
      [returns_sum](const Arrays& in, const Params& params) {
        if (!returns_sum) {
          return Arrays{
              norms::residual_rms_norm(in[0], in[1], in[2], eps_of(params))};
        }
        const auto [normed, sum] =
            norms::add_rms_norm(in[0], in[1], in[2], eps_of(params));
        return Arrays{normed, sum};
      });
}

} // namespace

void register_norms(Registry& registry) {
  registry.add(rms_norm_spec());
  registry.add(rms_norm_grad_spec());
  registry.add(
      norm::spec_of(
          {.family = "norms",
           .name = "rms_norm_no_weight",
           .summary = "RMS normalisation over the last axis",
           .inputs = {"x"}},
          [](const Arrays& in, const Params& params) {
            return Arrays{norms::rms_norm_no_weight(in[0], eps_of(params))};
          }));
  registry.add(centred_spec(true));
  registry.add(centred_spec(false));
  registry.add(dropout_spec());
  registry.add(residual_spec(false));
  registry.add(residual_spec(true));
}

} // namespace zmlx::kernels
