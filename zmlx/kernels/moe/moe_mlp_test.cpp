// SPDX-License-Identifier: MIT
// Mixtures of experts and feed-forward layers of every kind against every
// expert in dense float32, with stock MLX's own operations.
#include "zmlx/kernels/moe/moe_mlp.h"

#include <gtest/gtest.h>

#include "zmlx/kernels/moe/experts_kernel.h"
#include "zmlx/kernels/moe/product.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::moe {
namespace {

using Kind = Activation::Kind;

mx::array normal(mx::Shape shape, int seed) {
  const float size = 1 / std::sqrt(static_cast<float>(shape.back()));
  return mx::random::normal(
             std::move(shape), mx::float32, mx::random::key(seed)) *
      mx::array(size);
}

double difference(const mx::array& a, const mx::array& b) {
  EXPECT_EQ(a.shape(), b.shape());
  const auto x = mx::astype(a, mx::float32), y = mx::astype(b, mx::float32);
  return mx::max(mx::abs(x - y)).item<float>() /
      std::max(1e-30f, mx::max(mx::abs(y)).item<float>());
}

constexpr Kind kKinds[] =
    {Kind::Silu, Kind::GeluTanh, Kind::Gelu, Kind::Relu2, Kind::ClampedSwiglu};

/// How a case's weights are stored: bits of gate and the rest; 0: not
/// quantised.
struct Stored {
  int gate_bits = 4, bits = 4;
  bool biases = false;
};

Projection projection(mx::Shape shape, int bits, bool biased, int seed) {
  const auto w = normal(shape, seed);
  Projection made(w);
  if (bits != 0) {
    const auto parts = mx::quantize(w, 64, bits);
    made.weight =
        quant::QuantizedArrays{parts[0], parts[1], parts[2], bits, 64};
  }
  if (biased) {
    shape.pop_back();
    made.bias = normal(shape, seed + 100);
  }
  return made;
}

mx::array dense(const Projection& p) {
  const auto* w = std::get_if<quant::QuantizedArrays>(&p.weight);
  return w
      ? mx::dequantize(w->words, w->scales, w->biases, w->group_size, w->bits)
      : std::get<mx::array>(p.weight);
}

/// x through matrix e of a stack.
mx::array through(const Projection& p, int e, const mx::array& x) {
  const auto y = mx::matmul(x, mx::transpose(mx::take(dense(p), e, 0)));
  return p.bias ? y + mx::take(*p.bias, e, 0) : y;
}

mx::array one_expert(const ExpertArrays& experts, int e, const mx::array& x) {
  std::optional<mx::array> gate;
  if (experts.gate) {
    gate = through(*experts.gate, e, x);
  }
  const auto up = through(experts.up, e, x);
  const auto& shape = experts.activation;
  const auto& g = gate ? *gate : up;
  const auto sigmoid = [](const mx::array& v) {
    return mx::array(1.0f) / (mx::array(1.0f) + mx::exp(mx::negative(v)));
  };
  auto hidden = g;
  switch (shape.kind) {
    case Kind::Silu:
      hidden = g * sigmoid(g);
      break;
    case Kind::GeluTanh:
      hidden = mx::array(0.5f) * g *
          (mx::array(1.0f) +
           mx::tanh(
               mx::array(0.7978845608f) *
               (g + mx::array(0.044715f) * mx::power(g, mx::array(3)))));
      break;
    case Kind::Gelu:
      hidden = mx::array(0.5f) * g *
          (mx::array(1.0f) + mx::erf(g / mx::sqrt(mx::array(2.0f))));
      break;
    case Kind::Relu2:
      hidden = mx::where(g > mx::array(0.0f), g * g, mx::array(0.0f));
      break;
    case Kind::ClampedSwiglu: {
      const auto limit = mx::array(shape.limit);
      const auto low = mx::minimum(g, limit);
      const auto within = mx::maximum(mx::minimum(up, limit), -limit);
      return through(
          experts.down,
          e,
          low * sigmoid(mx::array(shape.alpha) * low) *
              (within + mx::array(1.0f)));
    }
  }
  return through(experts.down, e, gate ? hidden * up : hidden);
}

struct MoeCase {
  RouterSpec spec;
  Projection router;
  mx::array bias = normal({8}, 2);
  ExpertArrays experts;

  explicit MoeCase(
      const Stored& stored = {},
      Activation activation = {},
      bool gated = true)
      : router(projection({8, 128}, stored.bits, stored.biases, 1)),
        experts{
            std::nullopt,
            projection({8, 192, 128}, stored.bits, stored.biases, 4),
            projection({8, 128, 192}, stored.bits, stored.biases, 5),
            activation} {
    if (gated) {
      experts.gate =
          projection({8, 192, 128}, stored.gate_bits, stored.biases, 3);
    }
    spec.score = RouterSpec::Score::Sigmoid;
    spec.top_k = 3;
    spec.epsilon = 1e-6f;
    spec.scale = 1.5f;
  }

  mx::array run(const mx::array& x) const {
    return moe_mlp(x, spec, router, bias, experts);
  }

  // Every expert on every token, in dense float32.
  mx::array reference(const mx::array& x) const {
    auto logits = mx::matmul(x, mx::transpose(dense(router)));
    if (router.bias) {
      logits = logits + *router.bias;
    }
    const auto scores = mx::sigmoid(logits);
    const auto order = mx::argsort(mx::negative(scores + bias), -1);
    const auto rank = mx::argsort(order, -1);
    auto weights =
        mx::where(rank < mx::array(spec.top_k), scores, mx::array(0.0f));
    if (spec.renormalise) {
      weights =
          weights / (mx::sum(weights, -1, true) + mx::array(spec.epsilon));
    }
    weights = weights * mx::array(spec.scale);
    auto y = mx::zeros_like(x);
    for (int e = 0; e < 8; ++e) {
      const auto w = mx::take(weights, mx::array({e}), 1);
      const auto chosen = mx::astype(w > mx::array(0.0f), mx::float32);
      y = y +
          (spec.weight_on_input ? chosen * one_expert(experts, e, x * w)
                                : w * one_expert(experts, e, x));
    }
    return y;
  }

  void expect_reference(const std::string& what) const {
    for (const int tokens : {1, 3, 20}) {
      const auto x = normal({tokens, 128}, tokens) * mx::array(8.0f);
      EXPECT_LT(difference(run(x), reference(x)), 5e-6)
          << what << ", tokens " << tokens;
    }
  }
};

TEST(MoeMlp, MatchesEveryExpertInDenseFloat32HoweverWeightsAreStored) {
  MoeCase().expect_reference("4 bits");
  MoeCase({0, 0, true}).expect_reference("dense with biases");
  MoeCase({8, 3, true}).expect_reference("8 and 3 bits with biases");
  MoeCase({0, 4}).expect_reference("dense gate");
}

TEST(MoeMlp, HasEveryActivationWithAGateAndWithout) {
  for (const auto kind : kKinds) {
    for (const bool gated : {true, false}) {
      const Activation activation{kind, 1.3f, 0.4f};
      const MoeCase one({0, 0, true}, activation, gated);
      if (!gated && kind == Kind::ClampedSwiglu) {
        EXPECT_THROW(one.run(normal({1, 128}, 1)), std::invalid_argument);
      } else {
        one.expect_reference(
            "activation " + std::to_string(static_cast<int>(kind)));
      }
    }
  }
}

TEST(MoeMlp, WeighsTheInputWhereToldTo) {
  MoeCase one;
  one.spec.weight_on_input = true;
  EXPECT_THROW(one.run(normal({1, 128}, 1)), std::invalid_argument);
  one.spec.top_k = 1;
  one.spec.renormalise = false;
  one.expect_reference("weights on the input");
}

TEST(MoeMlp, TakesStridedRowsNarrowTypesAndNoRows) {
  const MoeCase one;
  const auto x = normal({2, 5, 128}, 7) * mx::array(8.0f);
  const auto flat = mx::reshape(x, {10, 128});
  const auto view = mx::swapaxes(mx::contiguous(mx::swapaxes(x, 0, 1)), 0, 1);
  EXPECT_LT(
      difference(one.run(view), mx::reshape(one.reference(flat), x.shape())),
      5e-6);
  for (const auto dtype : {mx::float16, mx::bfloat16}) {
    const auto narrow = mx::astype(flat, dtype);
    const auto y = one.run(narrow);
    EXPECT_EQ(y.dtype(), dtype);
    EXPECT_LT(
        difference(y, one.reference(mx::astype(narrow, mx::float32))), 5e-3);
  }
  EXPECT_EQ(one.run(mx::zeros({0, 128})).shape(), (mx::Shape{0, 128}));
}

TEST(MoeMlp, GivesTheSameBitsForAnyNumberOfThreadsAndEveryRun) {
  for (const Stored& stored : {Stored{}, Stored{0, 0, true}}) {
    const MoeCase c(stored);
    for (int tokens : {1, 40}) {
      const auto x = normal({tokens, 128}, 9);
      set_num_threads(1);
      auto one = c.run(x);
      mx::eval(one);
      for (int threads : {2, 3}) {
        set_num_threads(threads);
        for (int i = 0; i < 3; ++i) {
          EXPECT_TRUE(mx::array_equal(c.run(x), one).item<bool>())
              << threads << " threads";
        }
      }
    }
  }
  set_num_threads(2);
}

TEST(MoeMlp, HasGradientsOfItsInputAndOfDenseWeights) {
  for (const Stored& stored : {Stored{}, Stored{0, 0, true}}) {
    const MoeCase c(stored);
    const auto x = normal({5, 128}, 11) * mx::array(8.0f);
    const auto cotangent = normal({5, 128}, 12);
    const auto gradient = [&](const auto& f) {
      return mx::vjp(
                 [&](const std::vector<mx::array>& in) {
                   return std::vector<mx::array>{f(in[0])};
                 },
                 {x},
                 {cotangent})
          .second[0];
    };
    EXPECT_LT(
        difference(
            gradient([&](const mx::array& v) { return c.run(v); }),
            gradient([&](const mx::array& v) { return c.reference(v); })),
        1e-5);
  }
  MoeCase c({0, 0, true});
  const auto x = normal({5, 128}, 11) * mx::array(8.0f);
  const auto gradients = [&](bool ours) {
    return mx::vjp(
               [&](const std::vector<mx::array>& in) {
                 MoeCase with = c;
                 with.router.weight = in[0];
                 with.experts.down = Projection(in[1], in[2]);
                 return std::vector<mx::array>{
                     ours ? with.run(x) : with.reference(x)};
               },
               {dense(c.router), dense(c.experts.down), *c.experts.down.bias},
               {normal({5, 128}, 12)})
        .second;
  };
  const auto got = gradients(true), want = gradients(false);
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_LT(difference(got[i], want[i]), 1e-5) << i;
  }
}

TEST(MoeMlp, NamesWhatDoesNotFit) {
  const auto message = [](const MoeCase& c, const mx::array& x) {
    try {
      c.run(x);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  MoeCase c;
  EXPECT_EQ(
      message(c, normal({1, 64}, 1)),
      "[moe_mlp] gate must be (8,192,64), got (8,192,128).");
  c.spec.top_k = 9;
  EXPECT_EQ(
      message(c, normal({1, 128}, 1)),
      "[moe_mlp] top_k must be 1 to 8, got 9.");
  c = MoeCase();
  c.router = projection({7, 128}, 4, false, 1);
  EXPECT_EQ(
      message(c, normal({1, 128}, 1)),
      "[moe_mlp] the router must be (8,128), got (7,128).");
}

TEST(GatedMlp, MatchesOneExpertOfAStack) {
  for (const Stored& stored : {Stored{}, Stored{0, 0, true}, Stored{8, 4}}) {
    const MoeCase c(stored, {Kind::GeluTanh});
    const auto only = [](const Projection& p) {
      auto one = [](const mx::array& a) { return mx::take(a, 3, 0); };
      Projection made = p;
      if (auto* w = std::get_if<quant::QuantizedArrays>(&made.weight)) {
        *w = {one(w->words), one(w->scales), one(w->biases), w->bits, 64};
      } else {
        made.weight = one(std::get<mx::array>(made.weight));
      }
      if (made.bias) {
        made.bias = one(*made.bias);
      }
      return made;
    };
    const ExpertArrays layer{
        only(*c.experts.gate),
        only(c.experts.up),
        only(c.experts.down),
        c.experts.activation};
    for (int tokens : {1, 5, 20}) {
      const auto x = normal({1, tokens, 128}, tokens) * mx::array(8.0f);
      EXPECT_LT(
          difference(gated_mlp(x, layer), one_expert(c.experts, 3, x)), 5e-6);
    }
  }
}

/// What GPUs run, in its host form, against every chosen expert in float32.
void expect_kernels(
    const ExpertArrays& experts,
    const mx::array& x,
    const mx::array& ids) {
  ASSERT_TRUE(fits_kernels(experts));
  const int tokens = ids.shape(0), top_k = ids.shape(1);
  const auto weights =
      mx::random::uniform(ids.shape(), mx::float32, mx::random::key(3));
  const auto got = experts_by_kernels(
      x, experts, Chosen{mx::astype(ids, mx::uint32), weights});
  EXPECT_EQ(got.dtype(), x.dtype());
  auto want = mx::zeros(x.shape(), mx::float32);
  const auto wide = mx::astype(x, mx::float32);
  for (int e = 0; e < 8; ++e) {
    const auto here = mx::astype(mx::equal(ids, mx::array(e)), mx::float32);
    want =
        want + mx::sum(here * weights, -1, true) * one_expert(experts, e, wide);
  }
  EXPECT_LT(difference(got, want), x.dtype() == mx::float32 ? 5e-6 : 5e-3)
      << tokens << " tokens, top " << top_k;
}

const mx::array kIds = mx::array({7, 0, 3, 3, 2, 7}, {2, 3});

TEST(ExpertKernels, MatchEveryBitWidthBiasAndActivation) {
  const auto x = normal({2, 128}, 8) * mx::array(8.0f);
  for (const Stored& stored :
       {Stored{4, 4}, Stored{8, 8, true}, Stored{3, 5}, Stored{2, 6, true}}) {
    expect_kernels(MoeCase(stored).experts, x, kIds);
  }
  for (const auto kind :
       {Kind::GeluTanh, Kind::Gelu, Kind::Relu2, Kind::ClampedSwiglu}) {
    const Activation activation{kind, 1.3f, 0.4f};
    expect_kernels(MoeCase({8, 4}, activation).experts, x, kIds);
    if (kind != Kind::ClampedSwiglu) {
      expect_kernels(MoeCase({4, 8}, activation, false).experts, x, kIds);
    }
  }
  expect_kernels(MoeCase().experts, mx::astype(x, mx::bfloat16), kIds);
}

TEST(ExpertKernels, TakeVectorsLongerThanAThreadgroupHolds) {
  // Which is 224 units of 32: 232 of x, then 3 times 80 of what is hidden.
  for (const auto& [dim, hidden] : {std::pair(7424, 64), {128, 2560}}) {
    const ExpertArrays experts{
        projection({8, hidden, dim}, 4, false, 3),
        projection({8, hidden, dim}, 4, false, 4),
        projection({8, dim, hidden}, 4, false, 5)};
    expect_kernels(
        experts, normal({2, dim}, 6) * mx::array(std::sqrt(dim)), kIds);
  }
}

TEST(ExpertKernels, RunALayerOfItsOwn) {
  // Of rows that no threadgroup divides.
  const ExpertArrays stack{
      projection({1, 192, 128}, 4, true, 3),
      projection({1, 192, 128}, 4, true, 4),
      projection({1, 130, 192}, 8, true, 5)};
  const auto x = normal({3, 128}, 6) * mx::array(8.0f);
  EXPECT_LT(
      difference(
          experts_by_kernels(x, stack, std::nullopt), one_expert(stack, 0, x)),
      5e-6);
}

TEST(ExpertKernels, KeepNan) {
  // One NaN in a row of x: then nothing that comes of the row is a number.
  const mx::array nan(NAN), column = mx::arange(0, 128, 1);
  const auto x =
      mx::where(mx::equal(column, mx::array(7)), nan, normal({1, 128}, 8));
  for (const auto kind : kKinds) {
    for (const bool gated : {true, false}) {
      if (!gated && kind == Kind::ClampedSwiglu) {
        continue;
      }
      const MoeCase c({4, 4}, {kind, 1.3f, 0.4f}, gated);
      const auto y = experts_by_kernels(
          x,
          c.experts,
          Chosen{mx::array({7, 0, 3}, {1, 3}, mx::uint32), mx::ones({1, 3})});
      EXPECT_TRUE(mx::all(mx::isnan(y)).item<bool>())
          << static_cast<int>(kind) << (gated ? " gated" : "");
    }
  }
}

TEST(ExpertKernels, GiveLogitsOfNarrowRowsInFloat32) {
  const auto x = normal({5, 128}, 8) * mx::array(8.0f);
  for (const Stored& stored : {Stored{4, 4}, Stored{8, 8, true}}) {
    const auto router = MoeCase(stored).router;
    ASSERT_TRUE(fits_logits(router));
    for (const auto dtype : {mx::float32, mx::float16, mx::bfloat16}) {
      const auto rows = mx::astype(x, dtype);
      const auto got = logits_by_kernel(rows, router);
      EXPECT_EQ(got.dtype(), mx::float32);
      auto want = mx::matmul(
          mx::astype(rows, mx::float32), mx::transpose(dense(router)));
      want = router.bias ? want + *router.bias : want;
      EXPECT_LT(difference(got, want), 5e-6) << dtype;
    }
  }
  EXPECT_FALSE(fits_logits(MoeCase({0, 0}).router));
}

TEST(ExpertKernels, AreDeclinedForWhatTheyCannotRead) {
  EXPECT_FALSE(fits_kernels(MoeCase({0, 0}).experts));
  EXPECT_FALSE(fits_kernels(MoeCase({0, 4}).experts));
  auto mixed = MoeCase({4, 4, true}).experts;
  mixed.gate->bias.reset();
  EXPECT_FALSE(fits_kernels(mixed));
}

TEST(MoeProducts, AreTheSameOfRowsSortedByExpert) {
  const MoeCase c;
  const auto x = normal({2, 128}, 8);
  const auto sorted = sort_pairs(x, kIds);
  const auto by_rows = product(
      mx::expand_dims(x, {-2, -3}), c.experts.up.weight, ChosenMatrices{kIds});
  const auto by_experts = product(
      sorted.rows, c.experts.up.weight, ChosenMatrices{sorted.ids, true});
  auto rows = sorted.rows;
  mx::eval(rows);
  EXPECT_EQ(rows.strides(-2), 128); // or MLX's grouped product misreads them
  EXPECT_TRUE(
      mx::array_equal(sorted.ids, mx::array({0, 2, 3, 3, 7, 7})).item<bool>());
  EXPECT_LT(
      difference(
          mx::reshape(mx::take(by_experts, sorted.back, 0), {2, 3, 1, 192}),
          by_rows),
      1e-6);
}

} // namespace
} // namespace zmlx::moe
