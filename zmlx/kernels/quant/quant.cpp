// SPDX-License-Identifier: MIT
// References, cases and specs of the products with packed weights.
#include "zmlx/kernels/quant/quant.h"

#include "zmlx/authoring/registry.h"
#include "zmlx/kernels/common/packed_spec.h"
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

Traffic traffic(const Arrays& in, const Arrays& out) {
  Traffic traffic;
  for (const auto* arrays : {&in, &out}) {
    for (const auto& array : *arrays) {
      traffic.bytes += static_cast<double>(array.nbytes());
    }
  }
  for (const auto& array : out) {
    traffic.flops += 2.0 * static_cast<double>(in[0].size()) *
        static_cast<double>(array.shape(-1));
  }
  return traffic;
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
      .params = packed::packing_params(),
      .run = run,
      .reference = composed,
      .gpu = false,
      .cases = cases(),
      .bench =
          {{mx::float32, {{1, 4096}, {4096, 4096}}, four},
           {mx::float32, {{32, 2048}, {2048, 2048}}, four}},
      .make_inputs =
          [](const KernelCase& one, uint64_t seed) {
            return packed::inputs_of(one, 1, 1, seed);
          },
      .traffic = traffic,
      .terms = [](const KernelCase& one) { return one.shapes[1][1]; },
      // An infinity times a weight of zero, which may be a rounding error here.
      .specials = Specials::kNan,
  };
}

// Inputs stand as x, the norm's weight, then words, scales and biases of each
// matrix.
Arrays run_norm_qkv(const Arrays& in, const Params& params) {
  quant::NormQkv with{
      in[1],
      static_cast<float>(params.at("eps")),
      whole(params, "one_plus") != 0,
      {}};
  for (size_t i = 2; i < in.size(); i += 3) {
    with.linears.push_back(
        {{in[i],
          in[i + 1],
          in[i + 2],
          whole(params, "bits"),
          whole(params, "group_size")}});
  }
  return quant::rms_norm_qkv(in[0], with);
}

Arrays composed_norm_qkv(const Arrays& in, const Params& params) {
  const mx::array weight = whole(params, "one_plus") != 0
      ? reference::number(1, in[1]) + in[1]
      : in[1];
  const mx::array normed = reference::rms_norm(in[0], weight, params.at("eps"));
  Arrays outputs;
  for (size_t i = 2; i < in.size(); i += 3) {
    outputs.push_back(
        reference::quantized_matmul(
            normed, in[i], in[i + 1], in[i + 2], params));
  }
  return outputs;
}

KernelSpec norm_qkv_spec() {
  const auto shapes = [](int rows, int dim, int q, int kv) {
    return std::vector<mx::Shape>{
        {1, rows, dim}, {dim}, {q, dim}, {kv, dim}, {kv, dim}};
  };
  const Params params = {
      {"bits", 4}, {"group_size", 64}, {"eps", 1e-5}, {"one_plus", 0}};
  // Fewer rows than go through MLX's products on a GPU.
  std::vector<KernelCase> cases = cases_of(
      {shapes(0, 128, 64, 32), shapes(1, 256, 70, 33), shapes(5, 320, 96, 17)},
      params);
  for (const auto& [bits, group] :
       {std::pair(2, 32), {3, 64}, {5, 128}, {6, 64}, {8, 32}}) {
    Params other = params;
    other["bits"] = bits;
    other["group_size"] = group;
    other["one_plus"] = 1;
    cases.push_back({mx::float32, shapes(2, 384, 64, 32), other});
  }
  auto known = packed::packing_params();
  known.push_back({"eps", "added to the mean of squares", 1e-5});
  known.push_back({"one_plus", "1: scales by 1 + norm_weight", 0.0});
  return {
      .family = "quant",
      .name = "rms_norm_qkv",
      .summary = "RMS normalisation and three products with packed matrices",
      .call =
          "zmlx::quant::rms_norm_qkv(x, {norm_weight, eps, one_plus, {q, k, v}})",
      .inputs = packed::with_matrices(
          {{"x", "(..., dim) float"}, {"norm_weight", "(dim) float"}},
          {{"q", "(rows, dim)"}, {"k", "(rows, dim)"}, {"v", "(rows, dim)"}}),
      .outputs =
          {{"queries", "(..., rows of q) in x's type; float32 inside"},
           {"keys", "likewise of k"},
           {"values", "likewise of v"}},
      .params = std::move(known),
      .run = run_norm_qkv,
      .reference = composed_norm_qkv,
      .cases = std::move(cases),
      .bench = {{mx::float32, shapes(1, 2048, 2048, 512), params}},
      .make_inputs =
          [](const KernelCase& one, uint64_t seed) {
            return packed::inputs_of(one, 2, 3, seed);
          },
      .traffic = traffic,
      .terms = [](const KernelCase& one) { return one.shapes[2][1]; },
      // As above.
      .specials = Specials::kNan,
  };
}

} // namespace

void register_quant(Registry& registry) {
  registry.add(spec());
  registry.add(norm_qkv_spec());
}

} // namespace zmlx::kernels
