// SPDX-License-Identifier: MIT
// References, cases and specs of the products with packed weights.
#include "zmlx/kernels/quant/quant.h"

#include "zmlx/authoring/registry.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::kernels {
namespace {

using reference::whole;

Arrays run(const Arrays& in, const Params& params) {
  return {quant::quantized_matmul(
      in[0],
      {in[1],
       in[2],
       in[3],
       whole(params, "bits"),
       whole(params, "group_size")})};
}

Arrays composed(const Arrays& in, const Params& params) {
  return {reference::quantized_matmul(in[0], in[1], in[2], in[3], params)};
}

// shapes: x and the dense matrix.
Arrays inputs_of(const KernelCase& one, uint64_t seed) {
  Arrays inputs = {normal_values(one.shapes[0], one.dtype, seed)};
  for (auto& part : mx::quantize(
           normal_values(one.shapes[1], mx::float32, seed + 1),
           whole(one.params, "group_size"),
           whole(one.params, "bits"))) {
    inputs.push_back(part);
  }
  return inputs;
}

std::vector<KernelCase> cases() {
  std::vector<KernelCase> cases;
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    for (int group : {32, 64, 128}) {
      const Params params = {{"bits", bits}, {"group_size", group}};
      cases.push_back({mx::float32, {{3, 384}, {37, 384}}, params});
    }
  }
  for (int rows : {0, 1, 9, 65}) {
    for (const auto& one : cases_of(
             {{{1, rows, 2112}, {20, 2112}}},
             {{"bits", 4}, {"group_size", 64}})) {
      cases.push_back(one);
    }
  }
  return cases;
}

KernelSpec spec() {
  const Params four = {{"bits", 4}, {"group_size", 64}};
  return {
      .family = "quant",
      .name = "quantized_matmul",
      .summary = "x times the transpose of a matrix in MLX's affine packing",
      .call =
          "zmlx::quant::quantized_matmul(x, {words, scales, biases, bits, "
          "group_size})",
      .inputs =
          {{"x", "(..., cols) float"},
           {"words", "(rows, cols * bits / 32) uint32", false},
           {"scales", "(rows, cols / group_size) float", false},
           {"biases", "as scales", false}},
      .outputs = {{"out", "(..., rows) in x's type; float32 accumulation"}},
      .params =
          {{"bits", "2, 3, 4, 5, 6 or 8"}, {"group_size", "32, 64 or 128"}},
      .run = run,
      .reference = composed,
      .gpu = false,
      .cases = cases(),
      .bench =
          {{mx::float32, {{1, 4096}, {4096, 4096}}, four},
           {mx::float32, {{32, 2048}, {2048, 2048}}, four}},
      .make_inputs = inputs_of,
      .traffic =
          [](const Arrays& in, const Arrays& out) {
            Traffic traffic;
            for (const auto& array : in) {
              traffic.bytes += static_cast<double>(array.nbytes());
            }
            traffic.bytes += static_cast<double>(out[0].nbytes());
            traffic.flops = 2.0 * static_cast<double>(in[0].size()) *
                static_cast<double>(out[0].shape(-1));
            return traffic;
          },
      .terms = [](const KernelCase& one) { return one.shapes[1][1]; },
      // An infinity times a weight of zero, which may be a rounding error here.
      .specials = Specials::kNan,
  };
}

} // namespace

void register_quant(Registry& registry) {
  registry.add(spec());
}

} // namespace zmlx::kernels
