// SPDX-License-Identifier: MIT
// References, cases and specs of the convolutions.
#include "zmlx/kernels/conv/conv.h"

#include "zmlx/authoring/registry.h"

namespace zmlx::kernels {
namespace {

Arrays run(const Arrays& in, const Params&) {
  const auto [y, products] = conv::gated_short_conv(in[0], in[1], in[2], in[3]);
  return {y, products};
}

Arrays composed(const Arrays& in, const Params&) {
  const auto parts = mx::split(in[0], 3, -1);
  const int length = in[0].shape(1), taps = in[2].shape(1);
  const int batch = in[0].shape(0), dim = in[0].shape(2) / 3;
  const mx::array history = mx::concatenate({in[1], parts[0] * parts[2]}, 1);
  mx::array sum = in[3];
  for (int k = 0; k < taps; ++k) {
    const mx::array past =
        mx::slice(history, {0, k, 0}, {batch, k + length, dim});
    sum = sum + past * mx::take(mx::squeeze(in[2], 2), k, 1);
  }
  return {
      parts[1] * sum,
      mx::slice(history, {0, length, 0}, {batch, length + taps - 1, dim})};
}

KernelCase case_of(int batch, int length, int dim, int taps) {
  return {
      mx::float32,
      {{batch, length, 3 * dim},
       {batch, taps - 1, dim},
       {dim, taps, 1},
       {dim}}};
}

KernelSpec spec() {
  return {
      .family = "conv",
      .name = "gated_short_conv",
      .summary = "LFM2's gated causal depthwise convolution, with its state",
      .call = "zmlx::conv::gated_short_conv(projected, before, weight, bias)",
      .inputs =
          {{"projected", "(batch, length, 3 dim) float32: B, C, x"},
           {"before", "(batch, taps - 1, dim) float32: the last products B x"},
           {"weight", "(dim, taps, 1) float"},
           {"bias", "(dim) float, or none"}},
      .outputs =
          {{"y", "(batch, length, dim) float32"},
           {"products", "as before, after the new ones"}},
      .run = run,
      .reference = composed,
      .gpu = false,
      .cases =
          {case_of(2, 4, 48, 3),
           case_of(1, 1, 1, 3),
           case_of(3, 1, 33, 4),
           case_of(0, 2, 8, 3),
           case_of(1, 2, 7, 2)},
      .bench = {case_of(1, 1, 2048, 3), case_of(1, 512, 2048, 3)},
      .terms = [](const KernelCase& one) { return one.shapes[2][1] + 1; },
  };
}

} // namespace

void register_conv(Registry& registry) {
  registry.add(spec());
}

} // namespace zmlx::kernels
