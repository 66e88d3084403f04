// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/rows_of_blocks.h"

#include <gtest/gtest.h>

#include <thread>

namespace zmlx::quant {
namespace {

using Part = RowsOfBlocks::Part;

QuantizedArrays
quantized(const mx::Shape& shape, int bits, int group_size, mx::Dtype dtype) {
  const auto w = mx::astype(
      mx::random::normal(shape, mx::float32, mx::random::key(3)), dtype);
  auto parts = mx::quantize(w, group_size, bits);
  mx::eval(parts);
  return {parts[0], parts[1], parts[2], bits, group_size};
}

bool same_bits(const mx::array& a, const mx::array& b) {
  const auto bytes = [](const mx::array& x) {
    return mx::view(mx::contiguous(x), mx::uint16);
  };
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
      mx::array_equal(bytes(a), bytes(b)).item<bool>();
}

TEST(RowsOfBlocks, GivesBackWhatItWasMadeOf) {
  for (const mx::Shape& shape :
       {mx::Shape{32, 64}, mx::Shape{96, 256}, mx::Shape{3, 64, 128}}) {
    for (const int bits : {4, 8}) {
      for (const auto dtype : {mx::bfloat16, mx::float16}) {
        const auto w = quantized(shape, bits, 64, dtype);
        const auto packed = RowsOfBlocks::pack(w);
        ASSERT_TRUE(packed);
        EXPECT_TRUE(same_bits(packed->rows(Part::Words), w.words));
        EXPECT_TRUE(same_bits(packed->rows(Part::Scales), w.scales));
        EXPECT_TRUE(same_bits(packed->rows(Part::Biases), w.biases));
      }
    }
  }
}

TEST(RowsOfBlocks, TakesFloatsThatSixteenBitsHold) {
  for (const auto dtype : {mx::bfloat16, mx::float16}) {
    auto w = quantized({64, 128}, 4, 32, dtype);
    w.scales = mx::astype(w.scales, mx::float32);
    w.biases = mx::astype(w.biases, mx::float32);
    mx::eval(w.scales, w.biases);
    const auto packed = RowsOfBlocks::pack(w);
    ASSERT_TRUE(packed);
    EXPECT_TRUE(same_bits(packed->rows(Part::Scales), w.scales));
    EXPECT_TRUE(same_bits(packed->rows(Part::Biases), w.biases));
  }
  EXPECT_FALSE(RowsOfBlocks::pack(quantized({64, 128}, 4, 32, mx::float32)));
}

TEST(RowsOfBlocks, LeavesWhatCannotLieInBlocks) {
  EXPECT_FALSE(RowsOfBlocks::pack(quantized({33, 64}, 4, 64, mx::float16)));
  EXPECT_FALSE(RowsOfBlocks::pack(quantized({32, 64}, 2, 64, mx::float16)));
}

TEST(RowsOfBlocks, KnowsItsArraysUntilTheyAreEvaluated) {
  const auto w = quantized({32, 64}, 4, 64, mx::bfloat16);
  EXPECT_FALSE(blocks_behind(w.words));
  EXPECT_EQ(unevaluated(w.words).id(), w.words.id());
  const auto packed = RowsOfBlocks::pack(w);
  mx::array words = packed->rows(Part::Words);
  EXPECT_EQ(blocks_behind(words), packed->blocks());
  const mx::array other = unevaluated(words);
  EXPECT_NE(other.id(), words.id());
  words.eval();
  EXPECT_FALSE(is_unpacking(words));
  EXPECT_TRUE(is_unpacking(other));
}

TEST(RowsOfBlocks, UnpacksInAThreadThatDidNotMakeIt) {
  const auto w = quantized({64, 64}, 4, 64, mx::bfloat16);
  mx::array words = RowsOfBlocks::pack(w)->rows(Part::Words);
  std::thread([&] { words.eval(); }).join();
  EXPECT_TRUE(same_bits(words, w.words));
}

TEST(RowsOfBlocks, GivesTheValuesOfRows) {
  const auto w = quantized({64, 128}, 4, 32, mx::bfloat16);
  const auto packed = RowsOfBlocks::pack(w);
  const auto all = mx::dequantize(
      w.words,
      mx::astype(w.scales, mx::float32),
      mx::astype(w.biases, mx::float32),
      32,
      4);
  const mx::array ids({3, -1, 0, 63}, {2, 2});
  const auto got = values_at(packed->blocks(), ids, mx::float32);
  EXPECT_EQ(got.shape(), (mx::Shape{2, 2, 128}));
  mx::array apart = mx::max(mx::abs(got - mx::take(all, ids, 0)));
  EXPECT_LT(apart.item<float>(), 1e-6f);
  const mx::array outside({64, -65}, {2});
  const auto nothing = values_at(packed->blocks(), outside, mx::float32);
  mx::array missing = mx::all(mx::isnan(nothing));
  EXPECT_TRUE(missing.item<bool>());
}

} // namespace
} // namespace zmlx::quant
