// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/combine_spec.h"

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/reference.h"
#include "zmlx/kernels/moe/combine.h"

namespace zmlx::kernels {
namespace {

using reference::whole;

// Whole numbers below `limit` in the place of shape `place`.
mx::array choices(const mx::Shape& shape, int limit, uint64_t seed) {
  const mx::array any =
      mx::abs(normal_values(shape, mx::float32, seed)) * mx::array(1e4f);
  return mx::remainder(
      mx::astype(any, mx::uint32), mx::array(limit, mx::uint32));
}

KernelSpec dispatch_spec() {
  return {
      .family = "moe",
      .name = "moe_dispatch",
      .summary = "Each token once for each of its experts, a view",
      .call = "zmlx::moe::moe_dispatch(x, indices)",
      .inputs =
          {{"x", "(..., dim) float"}, {"indices", "(..., k) integers", false}},
      .outputs = {{"out", "(..., k, dim) of x's type"}},
      .run =
          [](const Arrays& in, const Params&) {
            return Arrays{moe::moe_dispatch(in[0], in[1])};
          },
      .reference =
          [](const Arrays& in, const Params&) {
            return Arrays{
                mx::repeat(mx::expand_dims(in[0], -2), in[1].shape(-1), -2)};
          },
      .gradient = {0},
      .cases = cases_of({{{0, 8}, {0, 2}}, {{5, 33}, {5, 3}}}),
      .bench = {{mx::float32, {{512, 2048}, {512, 4}}}},
      .make_inputs =
          [](const KernelCase& one, uint64_t seed) {
            return Arrays{
                normal_values(one.shapes[0], one.dtype, seed),
                choices(one.shapes[1], 8, seed + 1)};
          },
  };
}

KernelSpec
combine_spec(const char* name, const char* summary, const char* out) {
  KernelSpec spec = {
      .family = "moe",
      .name = name,
      .summary = summary,
      .call = concat("zmlx::moe::", name, "(expert_outputs, weights)"),
      .inputs =
          {{"expert_outputs", "(..., k, dim) float"},
           {"weights", "(..., k) float"}},
      .outputs = {{"out", out}},
      .reference =
          [](const Arrays& in, const Params&) {
            return Arrays{mx::astype(
                mx::sum(in[0] * mx::expand_dims(in[1], -1), -2),
                in[0].dtype())};
          },
      .gradient = {0, 1},
      .cases = cases_of(
          {{{0, 2, 8}, {0, 2}},
           {{1, 1, 1}, {1, 1}},
           {{3, 4, 193}, {3, 4}},
           {{2, 3, 8, 64}, {2, 3, 8}}}),
      .bench =
          {{mx::float32, {{1, 8, 2048}, {1, 8}}},
           {mx::float32, {{512, 8, 2048}, {512, 8}}},
           {mx::bfloat16, {{512, 8, 2048}, {512, 8}}}},
      .terms =
          [](const KernelCase& one) {
            return int64_t{one.shapes[1].back()} + 1;
          },
  };
  return spec;
}

// products (batch, k, out) of chosen matrices (experts, in, out).
mx::array dense_products(
    const mx::array& act,
    const mx::array& weights,
    const mx::array& indices) {
  return mx::squeeze(
      mx::matmul(mx::expand_dims(act, 2), mx::take(weights, indices, 0)), 2);
}

mx::array gated(const mx::array& products, const mx::array& gate) {
  return mx::sum(
      products * mx::expand_dims(mx::astype(gate, products.dtype()), -1), 1);
}

std::vector<KernelCase> gather_cases(
    const std::vector<std::vector<int>>& sizes,
    const Params& params) {
  std::vector<std::vector<mx::Shape>> shapes;
  for (const auto& s : sizes) { // batch, k, in, out, experts
    shapes.push_back(
        {{s[0], s[1], s[2]},
         params.empty() ? mx::Shape{s[4], s[2], s[3]}
                        : mx::Shape{s[4], s[3], s[2]},
         {s[0], s[1]},
         {s[0], s[1]}});
  }
  return cases_of(shapes, params);
}

KernelSpec gather_spec() {
  return {
      .family = "moe",
      .name = "gather_qmm_combine",
      .summary = "Weighted sum of products with chosen matrices",
      .call = "zmlx::moe::gather_qmm_combine(act, weights, gate, indices)",
      .inputs =
          {{"act", "(batch, k, in) float"},
           {"weights", "(experts, in, out) float"},
           {"gate", "(batch, k) float"},
           {"indices", "(batch, k) integers", false}},
      .outputs = {{"out", "(batch, out) of act's type"}},
      .run =
          [](const Arrays& in, const Params&) {
            return Arrays{moe::gather_qmm_combine(in[0], in[1], in[2], in[3])};
          },
      .reference =
          [](const Arrays& in, const Params&) {
            return Arrays{gated(dense_products(in[0], in[1], in[3]), in[2])};
          },
      .cases = gather_cases(
          {{0, 2, 8, 8, 4}, {1, 1, 5, 3, 2}, {7, 3, 32, 48, 5}}, {}),
      .bench = {gather_cases({{8, 2, 512, 512, 8}}, {})[0]},
      .make_inputs =
          [](const KernelCase& one, uint64_t seed) {
            return Arrays{
                normal_values(one.shapes[0], one.dtype, seed),
                normal_values(one.shapes[1], one.dtype, seed + 1),
                normal_values(one.shapes[2], one.dtype, seed + 2),
                choices(one.shapes[3], one.shapes[1][0], seed + 3)};
          },
      .terms =
          [](const KernelCase& one) {
            return int64_t{one.shapes[0][1]} * one.shapes[0][2];
          },
      .specials = Specials::kNan,
  };
}

Arrays composed_quantized(const Arrays& in, const Params& params) {
  if (in[0].dtype() == mx::float64) {
    const mx::array dense = reference::dequantized(in[1], in[2], in[3], params);
    return {gated(
        dense_products(in[0], mx::swapaxes(dense, -1, -2), in[5]), in[4])};
  }
  const mx::array products = mx::gather_qmm(
      mx::expand_dims(in[0], 2),
      in[1],
      mx::astype(in[2], in[0].dtype()),
      mx::astype(in[3], in[0].dtype()),
      std::nullopt,
      in[5],
      true,
      whole(params, "group_size"),
      whole(params, "bits"));
  return {gated(mx::squeeze(products, 2), in[4])};
}

KernelSpec quantized_spec() {
  const Params params = {{"bits", 4}, {"group_size", 32}};
  return {
      .family = "moe",
      .name = "gather_qmm_combine_quantized",
      .summary = "Weighted sum of products with chosen packed matrices",
      .call =
          "zmlx::moe::gather_qmm_combine_quantized(act, {weights, scales, "
          "biases, bits, group_size}, gate, indices)",
      .inputs =
          {{"act", "(batch, k, in) float"},
           {"weights", "(experts, out, in) packed, uint32", false},
           {"scales", "float, one a group", false},
           {"biases", "as scales", false},
           {"gate", "(batch, k) float"},
           {"indices", "(batch, k) integers", false}},
      .outputs = {{"out", "(batch, out) of act's type"}},
      .params =
          {{"group_size", "32, 64 or 128", 64.0},
           {"bits", "2, 3, 4, 5, 6 or 8", 4.0}},
      .run =
          [](const Arrays& in, const Params& given) {
            return Arrays{moe::gather_qmm_combine_quantized(
                in[0],
                {in[1],
                 in[2],
                 in[3],
                 whole(given, "bits"),
                 whole(given, "group_size")},
                in[4],
                in[5])};
          },
      .reference = composed_quantized,
      .cases = gather_cases(
          {{0, 2, 64, 8, 4}, {1, 2, 64, 16, 3}, {9, 3, 96, 40, 5}}, params),
      .bench = {gather_cases({{8, 2, 512, 512, 8}}, params)[0]},
      .make_inputs =
          [](const KernelCase& one, uint64_t seed) {
            Arrays inputs = {normal_values(one.shapes[0], one.dtype, seed)};
            for (auto& part : mx::quantize(
                     normal_values(one.shapes[1], mx::float32, seed + 1),
                     whole(one.params, "group_size"),
                     whole(one.params, "bits"))) {
              inputs.push_back(part);
            }
            inputs.push_back(normal_values(one.shapes[2], one.dtype, seed + 2));
            inputs.push_back(
                choices(one.shapes[3], one.shapes[1][0], seed + 3));
            return inputs;
          },
      .terms =
          [](const KernelCase& one) {
            return int64_t{one.shapes[0][1]} * one.shapes[0][2];
          },
      .specials = Specials::kNan,
  };
}

} // namespace

void register_combine(Registry& registry) {
  registry.add(dispatch_spec());
  const char* own_type = "(..., dim) of expert_outputs' type";
  KernelSpec plain = combine_spec(
      "moe_combine", "Weighted sum of expert outputs, rounded once", own_type);
  plain.run = [](const Arrays& in, const Params&) {
    return Arrays{moe::moe_combine(in[0], in[1])};
  };
  registry.add(std::move(plain));
  // Rounding at every step is checked bit by bit in the family's test.
  KernelSpec exact = combine_spec(
      "moe_combine_exact",
      "Weighted sum of expert outputs, rounded at every step",
      own_type);
  exact.run = [](const Arrays& in, const Params&) {
    return Arrays{moe::moe_combine_exact(in[0], in[1])};
  };
  for (auto* cases : {&exact.cases, &exact.bench}) {
    std::erase_if(
        *cases, [](const KernelCase& one) { return one.dtype != mx::float32; });
  }
  registry.add(std::move(exact));
  KernelSpec wide = combine_spec(
      "moe_combine_fp32",
      "Weighted sum of expert outputs in float32",
      "(..., dim) float32");
  wide.run = [](const Arrays& in, const Params&) {
    return Arrays{moe::moe_combine_fp32(in[0], in[1])};
  };
  wide.reference = [sum = wide.reference](
                       const Arrays& in, const Params& params) {
    const Arrays sums = sum(in, params);
    return Arrays{
        sums[0].dtype() == mx::float64 ? sums[0]
                                       : mx::astype(sums[0], mx::float32)};
  };
  registry.add(std::move(wide));
  registry.add(gather_spec());
  registry.add(quantized_spec());
}

} // namespace zmlx::kernels
