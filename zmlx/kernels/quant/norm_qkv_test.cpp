// SPDX-License-Identifier: MIT
// The norm and its products against dense float32 of MLX's operations, by the
// CPU's kernels and by the GPU's in its host form.
#include "zmlx/kernels/quant/norm_qkv.h"

#include <gtest/gtest.h>

#include "zmlx/authoring/kernel.h"
#include "zmlx/kernels/quant/norm_qkv_kernel.h"

namespace zmlx::quant {
namespace {

using Arrays = std::vector<mx::array>;

mx::array normal(mx::Shape shape, int seed, float size = 1) {
  return mx::random::normal(
             std::move(shape), mx::float32, mx::random::key(seed)) *
      mx::array(size);
}

PackedLinear linear(int rows, int dim, int bits, int group, bool biased) {
  const auto parts = mx::quantize(
      normal({rows, dim}, rows, 1 / std::sqrt(static_cast<float>(dim))),
      group,
      bits);
  PackedLinear made{{parts[0], parts[1], parts[2], bits, group}};
  if (biased) {
    made.bias = normal({rows}, rows + 1);
  }
  return made;
}

NormQkv layer(int dim, std::vector<PackedLinear> linears) {
  return {normal({dim}, 3), 1e-5f, false, std::move(linears)};
}

/// Queries, keys and values of different widths, bits and groups.
NormQkv mixed(int dim) {
  return layer(
      dim,
      {linear(70, dim, 4, 64, true),
       linear(33, dim, 8, 32, false),
       linear(32, dim, 6, 32, true)});
}

Arrays reference(const mx::array& x, const NormQkv& with) {
  const auto wide = mx::astype(x, mx::float32);
  auto weight = with.norm_weight;
  weight = mx::astype(
      with.one_plus ? mx::array(1.0f, weight.dtype()) + weight : weight,
      mx::float32);
  const auto normed = wide /
      mx::sqrt(mx::mean(wide * wide, -1, true) + mx::array(with.eps)) * weight;
  Arrays outputs;
  for (const auto& [w, bias] : with.linears) {
    const auto dense = mx::astype(
        mx::dequantize(w.words, w.scales, w.biases, w.group_size, w.bits),
        mx::float32);
    const auto y = mx::matmul(normed, mx::transpose(dense));
    outputs.push_back(bias ? y + *bias : y);
  }
  return outputs;
}

void expect_reference(
    const Arrays& got,
    const mx::array& x,
    const NormQkv& with) {
  const auto want = reference(x, with);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].shape(), want[i].shape());
    EXPECT_EQ(got[i].dtype(), x.dtype());
    const auto apart = mx::abs(mx::astype(got[i], mx::float32) - want[i]);
    EXPECT_LT(
        mx::max(apart).item<float>() / mx::max(mx::abs(want[i])).item<float>(),
        x.dtype() == mx::float32 ? 5e-6 : 5e-3)
        << "output " << i << " of " << x.shape();
  }
}

TEST(NormQkv, EqualsDenseFloat32) {
  const auto with = mixed(192);
  for (const auto& shape :
       {mx::Shape{192}, {1, 1, 192}, {3, 1, 192}, {2, 20, 192}}) {
    const auto x = normal(shape, 5, 3);
    expect_reference(rms_norm_qkv(x, with), x, with);
  }
  const auto strided = mx::swapaxes(normal({4, 3, 192}, 6), 0, 1);
  expect_reference(rms_norm_qkv(strided, with), strided, with);
}

TEST(NormQkv, KeepsTheTypeAndRoundsOnePlusTheWeight) {
  for (const auto dtype : {mx::float32, mx::float16, mx::bfloat16}) {
    auto with = mixed(128);
    with.one_plus = true;
    with.norm_weight = mx::astype(with.norm_weight, dtype);
    const auto x = mx::astype(normal({3, 128}, 5), dtype);
    expect_reference(rms_norm_qkv(x, with), x, with);
    expect_reference(norm_qkv_by_kernel(x, with), x, with);
    // The norm's type need not be x's.
    const auto wide = mx::astype(x, mx::float32);
    expect_reference(rms_norm_qkv(wide, with), wide, with);
    expect_reference(norm_qkv_by_kernel(wide, with), wide, with);
  }
}

TEST(NormQkvKernel, EqualsDenseFloat32OfOneToThreeMatrices) {
  const auto all = mixed(192);
  for (size_t count = 1; count <= 3; ++count) {
    auto with = all;
    with.linears.resize(count, all.linears[0]);
    ASSERT_TRUE(fits_kernel(with));
    const auto x = normal({2, 192}, 8);
    expect_reference(norm_qkv_by_kernel(x, with), x, with);
  }
  for (const int bits : {2, 3, 5}) {
    const auto with = layer(128, {linear(40, 128, bits, 128, false)});
    const auto x = normal({1, 128}, 9);
    expect_reference(norm_qkv_by_kernel(x, with), x, with);
  }
}

TEST(NormQkvKernel, TakesVectorsLongerThanAThreadgroupHolds) {
  const auto with = mixed(7424); // 232 units of 32, not 224
  const auto x = normal({2, 7424}, 10);
  expect_reference(norm_qkv_by_kernel(x, with), x, with);
}

TEST(NormQkvKernel, PassesTheCheckedMode) {
  set_checked_kernels(true);
  const auto with = mixed(128);
  const auto x = normal({3, 128}, 11);
  expect_reference(norm_qkv_by_kernel(x, with), x, with);
  set_checked_kernels(false);
}

TEST(NormQkvKernel, IsDeclinedForWhatItCannotRead) {
  EXPECT_TRUE(fits_kernel(mixed(128)));
  auto with = mixed(128);
  const auto parts = mx::quantize(normal({32, 128}, 1), 32, 4, "mxfp4");
  with.linears[1].weight = {
      parts[0], parts[1], parts[1], 4, 32, cpu::Scheme::MXFP4};
  EXPECT_FALSE(fits_kernel(with));
  const auto x = normal({2, 128}, 2);
  const auto got = rms_norm_qkv(x, with)[1];
  const auto normed = mx::fast::rms_norm(x, with.norm_weight, with.eps);
  const auto want = mx::quantized_matmul(
      normed, parts[0], parts[1], std::nullopt, true, 32, 4, "mxfp4");
  EXPECT_LT(mx::max(mx::abs(got - want)).item<float>(), 1e-4);
}

TEST(NormQkv, HasGradientsOfItsInputNormAndBiases) {
  const auto with = mixed(128);
  const auto x = normal({3, 128}, 12);
  const auto gradients = [&](const auto& function) {
    return mx::vjp(
               [&](const Arrays& in) {
                 auto other = with;
                 other.norm_weight = in[1];
                 other.linears[0].bias = in[2];
                 return function(in[0], other);
               },
               {x, with.norm_weight, *with.linears[0].bias},
               {normal({3, 70}, 1), normal({3, 33}, 2), normal({3, 32}, 3)})
        .second;
  };
  const auto got = gradients(rms_norm_qkv), want = gradients(reference);
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_LT(
        mx::max(mx::abs(got[i] - want[i])).item<float>(),
        1e-5 * mx::max(mx::abs(want[i])).item<float>())
        << i;
  }
  const auto mapped = mx::vmap(
      [&](const Arrays& in) { return rms_norm_qkv(in[0], with); })({x});
  expect_reference(mapped, x, with);
}

TEST(NormQkv, NamesWhatDoesNotFit) {
  const auto message = [](const mx::array& x, const NormQkv& with) {
    try {
      rms_norm_qkv(x, with);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(
      message(mx::zeros({2, 64}), mixed(128)),
      "[rms_norm_qkv] x must be (..., dim) and the norm's weight (dim) of "
      "float32, float16 or bfloat16, got (2,64) of float32 and (128) of "
      "float32.");
  auto with = mixed(128);
  with.linears[2] = linear(32, 64, 4, 32, false);
  EXPECT_EQ(
      message(mx::zeros({2, 128}), with),
      "[rms_norm_qkv] matrices must have 128 columns to match x, got 64 of "
      "words (32,8).");
  with = mixed(128);
  with.linears[0].bias = mx::zeros({7});
  EXPECT_EQ(
      message(mx::zeros({2, 128}), with),
      "[rms_norm_qkv] a bias must be (70) float, got (7) of float32.");
  with.linears.clear();
  EXPECT_EQ(
      message(mx::zeros({2, 128}), with),
      "[rms_norm_qkv] matrices must be one to three, got 0.");
}

} // namespace
} // namespace zmlx::quant
