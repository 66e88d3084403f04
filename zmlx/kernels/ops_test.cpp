// SPDX-License-Identifier: MIT
// The CPU primitives against stock MLX in float32 on values that it handles
// well, with odd shapes, strided inputs, types, and thread counts.
#include <gtest/gtest.h>

#include "zmlx/kernels/attention/attention.h"
#include "zmlx/kernels/conv/short_conv.h"
#include "zmlx/kernels/norms/rms_norm.h"
#include "zmlx/kernels/quant/quantized_matmul.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx {

namespace mx = mlx::core;

namespace {

mx::array normal(mx::Shape shape, int seed) {
  return mx::random::normal(
      std::move(shape), mx::float32, mx::random::key(seed));
}

quant::QuantizedArrays
quantized(const mx::array& w, int bits = 4, int group_size = 64) {
  auto parts = mx::quantize(w, group_size, bits);
  mx::eval(parts);
  return {parts[0], parts[1], parts[2], bits, group_size};
}

mx::array dense(const quant::QuantizedArrays& w) {
  return mx::dequantize(w.words, w.scales, w.biases, w.group_size, w.bits);
}

double difference(const mx::array& a, const mx::array& b) {
  EXPECT_EQ(a.shape(), b.shape());
  const auto x = mx::astype(a, mx::float32), y = mx::astype(b, mx::float32);
  return mx::max(mx::abs(x - y)).item<float>() /
      std::max(1e-30f, mx::max(mx::abs(y)).item<float>());
}

bool same_bits(const mx::array& a, const mx::array& b) {
  return mx::array_equal(a, b).item<bool>();
}

TEST(QuantizedMatmul, MatchesADenseProductForAnyRowsBitsAndGroups) {
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    for (int group : {32, 64, 128}) {
      const auto w = quantized(normal({37, 384}, bits), bits, group);
      for (int rows : {1, 3, 7, 8, 13, 65}) {
        const auto x = normal({rows, 384}, rows);
        EXPECT_LT(
            difference(
                quant::quantized_matmul(x, w),
                mx::matmul(x, mx::transpose(dense(w)))),
            2e-6)
            << bits << " bits, group " << group << ", rows " << rows;
      }
    }
  }
}

TEST(QuantizedMatmul, KnowsRowsOfOneGroupThatCudaMisreads) {
  EXPECT_TRUE(quant::misread_on_cuda(quantized(normal({192, 64}, 1))));
  EXPECT_TRUE(quant::misread_on_cuda(quantized(normal({8, 128}, 1), 8, 128)));
  EXPECT_FALSE(quant::misread_on_cuda(quantized(normal({8, 128}, 1))));
  EXPECT_FALSE(quant::misread_on_cuda(quantized(normal({8, 1792}, 1))));
}

TEST(QuantizedMatmul, TakesTheSameProductInTwoGroups) {
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    for (int group : {32, 64, 128}) {
      const auto w = quantized(normal({19, group}, bits), bits, group);
      const auto x = normal({20, group}, group);
      EXPECT_LT(
          difference(
              quant::product_in_two_groups(x, w),
              mx::matmul(x, mx::transpose(dense(w)))),
          2e-6)
          << bits << " bits, group " << group;
    }
  }
}

TEST(QuantizedMatmul, CrossesBlocksOfColumns) {
  const auto w = quantized(normal({20, 2112}, 1));
  const auto x = normal({9, 2112}, 2);
  EXPECT_LT(
      difference(
          quant::quantized_matmul(x, w),
          mx::matmul(x, mx::transpose(dense(w)))),
      2e-6);
}

TEST(QuantizedMatmul, TakesStridedAndBatchedAndEmptyInputs) {
  const auto w = quantized(normal({32, 128}, 1));
  const auto base = normal({128, 6, 2}, 2);
  const auto strided = mx::transpose(base, {2, 1, 0});
  const auto plain = mx::contiguous(strided);
  EXPECT_TRUE(same_bits(
      quant::quantized_matmul(strided, w), quant::quantized_matmul(plain, w)));
  const auto every_other =
      mx::slice(normal({4, 256}, 3), {0, 0}, {4, 256}, {2, 2});
  EXPECT_TRUE(same_bits(
      quant::quantized_matmul(every_other, w),
      quant::quantized_matmul(mx::contiguous(every_other), w)));
  EXPECT_EQ(
      quant::quantized_matmul(mx::zeros({0, 128}), w).shape(),
      (mx::Shape{0, 32}));
}

TEST(QuantizedMatmul, RoundsHalfTypesOnce) {
  const auto w = quantized(normal({64, 256}, 1));
  const auto x = normal({5, 256}, 2);
  for (auto dtype : {mx::float16, mx::bfloat16}) {
    const auto half = mx::astype(x, dtype);
    const auto y = quant::quantized_matmul(half, w);
    EXPECT_EQ(y.dtype(), dtype);
    const auto exact =
        quant::quantized_matmul(mx::astype(half, mx::float32), w);
    EXPECT_TRUE(same_bits(y, mx::astype(exact, dtype)));
  }
}

TEST(QuantizedMatmul, AddsTheBiasAndNamesWhatDoesNotFit) {
  const auto w = quantized(normal({32, 128}, 1));
  const auto x = normal({2, 128}, 2), bias = normal({32}, 3);
  EXPECT_LT(
      difference(
          quant::quantized_matmul(x, w, bias),
          quant::quantized_matmul(x, w) + bias),
      1e-6);
  try {
    quant::quantized_matmul(normal({2, 64}, 1), w);
    FAIL();
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(
        error.what(),
        "[quantized_matmul] the last axis of x must be 128 to match the "
        "weights, got (2,64).");
  }
}

TEST(QuantizedMatmul, HasGradientsOfItsInputAndBias) {
  const auto w = quantized(normal({64, 128}, 1));
  const auto x = normal({5, 128}, 2), bias = normal({64}, 3);
  const auto gradients = [&](bool ours) {
    return mx::vjp(
               [&](const std::vector<mx::array>& in) {
                 return std::vector<mx::array>{
                     ours ? quant::quantized_matmul(in[0], w, in[1])
                          : mx::matmul(in[0], mx::transpose(dense(w))) + in[1]};
               },
               {x, bias},
               {normal({5, 64}, 4)})
        .second;
  };
  const auto got = gradients(true), want = gradients(false);
  EXPECT_LT(difference(got[0], want[0]), 1e-5);
  EXPECT_LT(difference(got[1], want[1]), 1e-5);
}

TEST(RmsNorm, MatchesMlxAndTakesStridedRows) {
  for (int rows : {1, 5, 300}) {
    const auto x = normal({rows, 193}, rows), w = normal({193}, 2);
    EXPECT_LT(
        difference(
            norms::rms_norm(x, w, 1e-5f), mx::fast::rms_norm(x, w, 1e-5f)),
        2e-6);
  }
  const auto x = mx::transpose(normal({64, 3, 2}, 4));
  const auto w = normal({64}, 5);
  EXPECT_TRUE(same_bits(
      norms::rms_norm(x, w, 1e-5f),
      norms::rms_norm(mx::contiguous(x), w, 1e-5f)));
}

TEST(Attention, MatchesMlxOverAPromptAndSteps) {
  const attention::Spec spec{4, 2, 32};
  const auto qn = normal({32}, 1), kn = normal({32}, 2);
  auto keys = mx::zeros({2, 2, 320, 32}), values = mx::zeros({2, 2, 320, 32});
  mx::eval(keys, values);
  auto all_k = mx::zeros({2, 2, 0, 32}), all_v = all_k;
  int offset = 0;
  for (int length : {5, 1, 1, 9, 290, 2}) {
    const auto q = normal({2, length, 128}, 10 + length);
    const auto k = normal({2, length, 64}, 20 + length);
    const auto v = normal({2, length, 64}, 30 + length);
    auto out = attention::attend({q, k, v, qn, kn, keys, values}, spec, offset);
    keys = out.cached_keys;
    values = out.cached_values;
    auto heads = [&](const mx::array& y, int n) {
      return mx::reshape(y, {2, length, n, 32});
    };
    auto turn = [&](const mx::array& y, const mx::array& w) {
      return mx::fast::rope(
          mx::transpose(mx::fast::rms_norm(y, w, 1e-5f), {0, 2, 1, 3}),
          32,
          false,
          10000.0f,
          1.0f,
          offset);
    };
    all_k = mx::concatenate({all_k, turn(heads(k, 2), kn)}, 2);
    all_v =
        mx::concatenate({all_v, mx::transpose(heads(v, 2), {0, 2, 1, 3})}, 2);
    auto expected = mx::fast::scaled_dot_product_attention(
        turn(heads(q, 4), qn),
        all_k,
        all_v,
        1 / std::sqrt(32.0f),
        length > 1 ? "causal" : "");
    expected =
        mx::reshape(mx::transpose(expected, {0, 2, 1, 3}), {2, length, 128});
    EXPECT_LT(difference(out.y, expected), 1e-5) << "at offset " << offset;
    offset += length;
  }
}

TEST(Attention, GivesTheSameBitsForAnyNumberOfThreads) {
  const attention::Spec spec{4, 2, 32};
  const auto w = normal({32}, 1);
  const auto cache = normal({2, 2, 700, 32}, 2);
  const auto q = normal({2, 100, 128}, 3), k = normal({2, 100, 64}, 4);
  for (int length : {1, 3, 100}) {
    auto cut = [&](const mx::array& x) {
      return mx::slice(x, {0, 0, 0}, {2, length, x.shape(2)});
    };
    std::vector<mx::array> outputs;
    for (int threads : {1, 2, 3}) {
      set_num_threads(threads);
      outputs.push_back(
          attention::attend(
              {cut(q), cut(k), cut(k), w, w, cache, cache}, spec, 600)
              .y);
      mx::eval(outputs.back());
    }
    set_num_threads(2);
    EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << length;
    EXPECT_TRUE(same_bits(outputs[0], outputs[2])) << length;
  }
}

TEST(Attention, AttendsToWhatItRoundsIntoAPackedCache) {
  const attention::Spec spec{4, 2, 64};
  const auto qn = normal({64}, 1), kn = normal({64}, 2);
  for (int group : {32, 64}) {
    auto empty = [&] {
      return attention::PackedCache{
          mx::zeros({2, 2, 300, 16}, mx::uint32),
          mx::zeros({2, 2, 300, 64 / group}),
          mx::zeros({2, 2, 300, 64 / group})};
    };
    auto keys = empty(), values = empty();
    auto plain_keys = mx::zeros({2, 2, 300, 64}), plain_values = plain_keys;
    int offset = 0;
    for (int length : {270, 1, 2, 9}) {
      const auto q = normal({2, length, 256}, 10 + length);
      const auto k = normal({2, length, 128}, 20 + length);
      const auto v = normal({2, length, 128}, 30 + length);
      auto out = attention::attend_packed(
          {q, k, v, qn, kn, keys, values}, spec, offset);
      keys = out.cached_keys;
      values = out.cached_values;
      // The float call appends what must have been rounded.
      const auto wanted = attention::attend(
          {q, k, v, qn, kn, plain_keys, plain_values}, spec, offset);
      const auto next = mx::Shape{2, 2, offset + length, 64};
      auto seen = [&](const mx::array& x, mx::Shape stop) {
        stop[3] = x.shape(3);
        return mx::slice(x, {0, 0, 0, 0}, stop);
      };
      auto rounded = [&](const mx::array& x) {
        const auto parts = mx::quantize(seen(x, next), group, 8);
        return mx::dequantize(parts[0], parts[1], parts[2], group, 8);
      };
      auto held = [&](const attention::PackedCache& cache) {
        return mx::dequantize(
            seen(cache.words, next),
            seen(cache.scales, next),
            seen(cache.biases, next),
            group,
            8);
      };
      plain_keys = wanted.cached_keys;
      plain_values = wanted.cached_values;
      EXPECT_LT(difference(held(keys), rounded(plain_keys)), 1e-6);
      EXPECT_LT(difference(held(values), rounded(plain_values)), 1e-6);
      const auto queries = mx::fast::rope(
          mx::transpose(
              mx::fast::rms_norm(mx::reshape(q, {2, length, 4, 64}), qn, 1e-5f),
              {0, 2, 1, 3}),
          64,
          false,
          10000.0f,
          1.0f,
          offset);
      const auto expected = mx::fast::scaled_dot_product_attention(
          queries,
          held(keys),
          held(values),
          1 / std::sqrt(64.0f),
          length > 1 ? "causal" : "");
      EXPECT_LT(
          difference(
              out.y,
              mx::reshape(
                  mx::transpose(expected, {0, 2, 1, 3}), {2, length, 256})),
          1e-5)
          << "at offset " << offset;
      offset += length;
    }
  }
}

TEST(Attention, NamesPackedCachesThatDoNotFit) {
  const attention::Spec spec{1, 1, 64};
  const auto x = normal({1, 1, 64}, 1), w = normal({64}, 2);
  const attention::PackedCache good{
      mx::zeros({1, 1, 4, 16}, mx::uint32),
      mx::zeros({1, 1, 4, 1}),
      mx::zeros({1, 1, 4, 1})};
  auto bad_groups = good, bad_type = good;
  bad_groups.scales = bad_groups.biases = mx::zeros({1, 1, 4, 4});
  bad_type.words = mx::zeros({1, 1, 4, 16}, mx::int32);
  for (const auto& bad : {bad_groups, bad_type}) {
    EXPECT_THROW(
        attention::attend_packed({x, x, x, w, w, bad, bad}, spec, 0),
        std::invalid_argument);
  }
  EXPECT_THROW(
      attention::attend_packed({x, x, x, w, w, good, good}, spec, 4),
      std::invalid_argument);
}

TEST(Attention, LeavesACacheThatOthersHoldAsItWas) {
  const attention::Spec spec{1, 1, 32};
  const auto x = normal({1, 1, 32}, 1), w = normal({32}, 2);
  auto keys = mx::zeros({1, 1, 4, 32}), values = mx::zeros({1, 1, 4, 32});
  mx::eval(keys, values);
  const auto out = attention::attend({x, x, x, w, w, keys, values}, spec, 0);
  mx::eval(out.y);
  EXPECT_EQ(mx::max(mx::abs(values)).item<float>(), 0.0f);
  EXPECT_GT(mx::max(mx::abs(out.cached_values)).item<float>(), 0.0f);
  EXPECT_THROW(
      attention::attend({x, x, x, w, w, keys, values}, spec, 4),
      std::invalid_argument);
}

TEST(Attention, TakesCachesThatAreStrided) {
  const attention::Spec spec{2, 2, 32};
  const auto x = normal({1, 1, 64}, 1), w = normal({32}, 2);
  const auto base = normal({1, 4, 2, 32}, 3);
  const auto strided = mx::transpose(base, {0, 2, 1, 3});
  const auto plain = mx::contiguous(strided);
  const auto a = attention::attend({x, x, x, w, w, strided, strided}, spec, 3);
  const auto b = attention::attend({x, x, x, w, w, plain, plain}, spec, 3);
  EXPECT_TRUE(same_bits(a.y, b.y));
  EXPECT_TRUE(same_bits(a.cached_keys, b.cached_keys));
}

TEST(ShortConv, MatchesMlxOverAPromptAndSteps) {
  const int dim = 48, taps = 3;
  const auto weight = normal({dim, taps, 1}, 1), bias = normal({dim}, 2);
  auto before = mx::zeros({2, taps - 1, dim});
  auto history = before;
  for (int length : {4, 1, 1, 2}) {
    const auto projected = normal({2, length, 3 * dim}, length);
    auto parts = mx::split(projected, 3, -1);
    history = mx::concatenate({history, parts[0] * parts[2]}, 1);
    const int total = history.shape(1);
    auto window =
        mx::slice(history, {0, total - length - taps + 1, 0}, {2, total, dim});
    auto expected =
        parts[1] * (mx::conv1d(window, weight, 1, 0, 1, dim) + bias);
    auto [y, inputs] = conv::gated_short_conv(projected, before, weight, bias);
    EXPECT_LT(difference(y, expected), 2e-6);
    before = inputs;
  }
}

} // namespace
} // namespace zmlx
