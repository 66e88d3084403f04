// SPDX-License-Identifier: MIT
// References, cases and specs of the norms.
#include "zmlx/kernels/norms/norms.h"

#include "zmlx/authoring/registry.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::kernels {
namespace {

Arrays run_rms_norm(const Arrays& in, const Params& params) {
  return {norms::rms_norm(in[0], in[1], static_cast<float>(params.at("eps")))};
}

Arrays rms_norm_reference(const Arrays& in, const Params& params) {
  return {reference::rms_norm(in[0], in[1], params.at("eps"))};
}

KernelSpec rms_norm_spec() {
  const Params params = {{"eps", 1e-5}};
  return {
      .family = "norms",
      .name = "rms_norm",
      .summary = "RMS normalisation over the last axis, scaled by weight",
      .call = "zmlx::norms::rms_norm(x, weight, eps)",
      .inputs = {{"x", "(..., dim) float"}, {"weight", "(dim) float"}},
      .outputs = {{"out", "x's shape and type; float32 inside"}},
      .params = {{"eps", "added to the mean of squares"}},
      .run = run_rms_norm,
      .reference = rms_norm_reference,
      .gpu = false,
      .cases = cases_of(
          {{{0, 64}, {64}},
           {{1, 1}, {1}},
           {{5, 193}, {193}},
           {{2, 3, 256}, {256}},
           {{300, 97}, {97}}},
          params),
      .bench =
          {{mx::float32, {{1, 2048}, {2048}}, params},
           {mx::float32, {{4096, 4096}, {4096}}, params}},
      .terms = [](const KernelCase& one) { return one.shapes[1][0]; },
  };
}

} // namespace

void register_norms(Registry& registry) {
  registry.add(rms_norm_spec());
}

} // namespace zmlx::kernels
