// SPDX-License-Identifier: MIT
// A layer's norm with the products after it, as patching runs it.
#include <nanobind/stl/vector.h>

#include <utility>
#include <vector>

#include "python/bindings/bind.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/moe/moe_mlp.h"
#include "zmlx/kernels/quant/norm_qkv.h"

namespace {

using zmlx::moe::Projection;
using zmlx::quant::NormQkv;
using zmlx::quant::QuantizedArrays;

NormQkv norm_qkv(
    const mx::array& norm_weight,
    float eps,
    bool one_plus,
    const std::vector<Projection>& projections) {
  NormQkv made{norm_weight, eps, one_plus, {}};
  for (const auto& [weight, bias] : projections) {
    const auto* packed = std::get_if<QuantizedArrays>(&weight);
    if (!packed) {
      zmlx::invalid("rms_norm_qkv", "matrices must be quantised.");
    }
    made.linears.push_back({*packed, bias});
  }
  return made;
}

} // namespace

void bind_norm_qkv(nb::module_& m) {
  nb::class_<NormQkv>(m, "NormQkv", "A norm and one to three projections.")
      .def(
          "__init__",
          [](NormQkv* self,
             const mx::array& norm_weight,
             float eps,
             bool one_plus,
             const std::vector<Projection>& projections) {
            new (self)
                NormQkv(norm_qkv(norm_weight, eps, one_plus, projections));
          },
          nb::arg("norm_weight"),
          nb::arg("eps"),
          nb::arg("one_plus"),
          nb::arg("projections"));
  m.def(
      "rms_norm_qkv",
      &zmlx::quant::rms_norm_qkv,
      nb::arg("x"),
      nb::arg("norm_qkv"),
      "What each projection gives of x normalised.");
}
