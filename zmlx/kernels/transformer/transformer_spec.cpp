// SPDX-License-Identifier: MIT
// References, cases and specs of the transformer family.
#include "zmlx/authoring/registry.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/dropout_mask.h"
#include "zmlx/kernels/common/norm_spec.h"
#include "zmlx/kernels/common/reference.h"
#include "zmlx/kernels/transformer/transformer.h"

namespace zmlx::kernels {
namespace {

float eps_of(const Params& params) {
  return static_cast<float>(params.at("eps"));
}

uint64_t seed_of(const Params& params) {
  return static_cast<uint64_t>(params.at("seed"));
}

KernelSpec gated_spec(
    const char* name,
    const char* summary,
    const char* arguments,
    bool gelu,
    mx::array (*run)(const Arrays&)) {
  const bool two = std::string(arguments) == "gate, up";
  const bool bias = std::string(arguments) == "x, bias";
  KernelSpec spec = {
      .family = "transformer",
      .name = name,
      .summary = summary,
      .call = concat("zmlx::transformer::", name, '(', arguments, ')'),
      .inputs = {},
      .outputs = {{"out", "(..., dim), the inputs' type; float32 inside"}},
      .run = [run](const Arrays& in, const Params&) { return Arrays{run(in)}; },
      .reference =
          [two, bias, gelu](const Arrays& in, const Params&) {
            const Arrays parts =
                two ? in : mx::split(bias ? in[0] + in[1] : in[0], 2, -1);
            return Arrays{
                (gelu ? reference::gelu_tanh(parts[0])
                      : reference::silu(parts[0])) *
                parts[1]};
          },
      .gradient = two || bias ? std::vector<int>{0, 1} : std::vector<int>{0},
      .cases = {},
      .bench = {},
  };
  if (two) {
    spec.inputs = {{"gate", "any shape, float"}, {"up", "as gate"}};
  } else {
    spec.inputs = {{"x", "(..., 2 dim) float"}};
    if (bias) {
      spec.inputs.push_back({"bias", "(2 dim) float"});
      // x + bias cancels.
      spec.terms = [](const KernelCase&) { return int64_t{2}; };
    }
  }
  const auto shapes = [&](int rows, int dim) {
    std::vector<mx::Shape> all = {{rows, two ? dim : 2 * dim}};
    if (two || bias) {
      all.push_back(two ? all[0] : mx::Shape{2 * dim});
    }
    return all;
  };
  spec.cases =
      cases_of({shapes(0, 4), shapes(1, 1), shapes(3, 257), shapes(7, 64)});
  spec.bench = {
      {mx::float32, shapes(1, 8192)},
      {mx::float32, shapes(1024, 8192)},
      {mx::bfloat16, shapes(1024, 8192)}};
  return spec;
}

KernelSpec dropout_spec() {
  return {
      .family = "transformer",
      .name = "dropout",
      .summary = "Zeros with probability p, the rest divided by 1 - p",
      .call = "zmlx::transformer::dropout(x, p, seed)",
      .inputs = {{"x", "any shape, float"}},
      .outputs = {{"out", "x's shape and type"}},
      .params =
          {{"p", "how many become 0, 0 to below 1"},
           {"seed", "which ones, a whole number", 0.0}},
      .run =
          [](const Arrays& in, const Params& params) {
            return Arrays{
                transformer::dropout(in[0], params.at("p"), seed_of(params))};
          },
      .reference =
          [](const Arrays& in, const Params& params) {
            const mx::array x =
                in[0].ndim() == 0 ? mx::reshape(in[0], {1}) : in[0];
            return Arrays{mx::reshape(
                x *
                    dropout_mask::reference(
                        x.shape(), params.at("p"), seed_of(params), x.dtype()),
                in[0].shape())};
          },
      .gradient = {0},
      .cases = cases_of(
          {{{0}}, {{}}, {{1}}, {{3, 5, 7}}, {{1025}}},
          {{"p", 0.3}, {"seed", 11}}),
      .bench =
          {{mx::float32, {{4096, 4096}}, {{"p", 0.1}, {"seed", 11}}},
           {mx::bfloat16, {{4096, 4096}}, {{"p", 0.1}, {"seed", 11}}}},
  };
}

KernelSpec summed_spec(bool centred, bool returns_sum) {
  const std::string first = returns_sum ? "x" : "x1";
  std::vector<std::string> inputs = {first, returns_sum ? "residual" : "x2"};
  inputs.insert(inputs.end(), {centred ? "gamma" : "weight"});
  if (centred) {
    inputs.push_back("beta");
  }
  const char* norm = centred ? "layernorm" : "rmsnorm";
  return norm::spec_of(
      {.family = "transformer",
       .name =
           returns_sum ? concat(norm, "_residual") : concat("fused_add_", norm),
       .summary = concat(
           centred ? "Layer" : "RMS",
           " normalisation of a sum",
           returns_sum ? ", and that sum" : ""),
       .inputs = inputs,
       .centred = centred,
       .residual = true,
       .weight = true,
       .bias = centred,
       .returns_sum = returns_sum,
       .eps = centred ? 1e-5 : 1e-6},
      [centred, returns_sum](const Arrays& in, const Params& params) {
        const float eps = eps_of(params);
        if (!returns_sum) {
          return Arrays{
              centred
                  ? transformer::fused_add_layernorm(
                        in[0], in[1], in[2], in[3], eps)
                  : transformer::fused_add_rmsnorm(in[0], in[1], in[2], eps)};
        }
        const auto [normed, sum] = centred
            ? transformer::layernorm_residual(in[0], in[1], in[2], in[3], eps)
            : transformer::rmsnorm_residual(in[0], in[1], in[2], eps);
        return Arrays{normed, sum};
      });
}

KernelSpec rms_norm_dropout_spec() {
  return norm::spec_of(
      {.family = "transformer",
       .name = "rms_norm_dropout",
       .summary = "RMS normalisation, then dropout",
       .inputs = {"x", "weight"},
       .weight = true,
       .dropout = true},
      [](const Arrays& in, const Params& params) {
        return Arrays{transformer::rms_norm_dropout(
            in[0], in[1], params.at("p"), seed_of(params), eps_of(params))};
      });
}

} // namespace

void register_transformer(Registry& registry) {
  registry.add(gated_spec(
      "swiglu",
      "silu(x1) x2 of the halves of the last axis",
      "x",
      false,
      [](const Arrays& in) { return transformer::swiglu(in[0]); }));
  registry.add(gated_spec(
      "geglu",
      "gelu_tanh(x1) x2 of the halves of the last axis",
      "x",
      true,
      [](const Arrays& in) { return transformer::geglu(in[0]); }));
  registry.add(gated_spec(
      "swiglu2", "silu(gate) up", "gate, up", false, [](const Arrays& in) {
        return transformer::swiglu2(in[0], in[1]);
      }));
  registry.add(gated_spec(
      "geglu2", "gelu_tanh(gate) up", "gate, up", true, [](const Arrays& in) {
        return transformer::geglu2(in[0], in[1]);
      }));
  registry.add(gated_spec(
      "bias_swiglu",
      "swiglu of x + bias",
      "x, bias",
      false,
      [](const Arrays& in) { return transformer::bias_swiglu(in[0], in[1]); }));
  registry.add(gated_spec(
      "bias_geglu", "geglu of x + bias", "x, bias", true, [](const Arrays& in) {
        return transformer::bias_geglu(in[0], in[1]);
      }));
  registry.add(dropout_spec());
  registry.add(rms_norm_dropout_spec());
  for (bool centred : {false, true}) {
    registry.add(summed_spec(centred, true));
    registry.add(summed_spec(centred, false));
  }
}

} // namespace zmlx::kernels
