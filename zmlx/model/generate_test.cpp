// SPDX-License-Identifier: MIT
// Generation over a toy network whose answers plain loops can foretell.
#include "zmlx/model/generate.h"

#include <stdexcept>

#include <gtest/gtest.h>

#include "zmlx/base/error.h"
#include "zmlx/model/decode/fused_network.h"

namespace zmlx {
namespace {

constexpr int kVocab = 97;

// A cache that holds a hash of all tokens so far, so that a wrong order, a
// token fed twice or a chunk lost changes every later answer.
class HashCache : public LayerCache {
 public:
  std::vector<mx::array> state() const override {
    return {hash};
  }
  mx::array hash = mx::array({1});
};

int next_hash(int hash, int token) {
  return (hash * 31 + token + 7) % 9973;
}

class ToyNetwork : public Network {
 public:
  std::string_view kind() const override {
    return "Toy";
  }
  Cache make_cache() const override {
    Cache cache;
    cache.push_back(std::make_unique<HashCache>());
    return cache;
  }
  mx::array forward(const mx::array& tokens, Cache& cache, bool last_only)
      override {
    lengths.push_back(tokens.shape(1));
    if (int(lengths.size()) == throw_at_call) {
      throw std::runtime_error("toy failure");
    }
    auto& held = static_cast<HashCache&>(*cache.at(0));
    std::vector<mx::array> rows;
    for (int i = 0; i < tokens.shape(1); ++i) {
      const mx::array token =
          mx::reshape(mx::slice(tokens, {0, i}, {1, i + 1}), mx::Shape{});
      held.hash = mx::remainder(
          held.hash * mx::array(31) + token + mx::array(7), mx::array(9973));
      rows.push_back(logits_for(held.hash));
    }
    if (last_only) {
      rows.erase(rows.begin(), rows.end() - 1);
    }
    return mx::astype(mx::expand_dims(mx::stack(rows), 0), dtype);
  }

  std::vector<int> lengths; // of every call
  int throw_at_call = -1;
  mx::Dtype dtype = mx::float32;

 private:
  static mx::array logits_for(const mx::array& hash) {
    const mx::array best = mx::remainder(hash, mx::array(kVocab));
    return mx::astype(
        mx::negative(mx::abs(mx::arange(kVocab) - best)), mx::float32);
  }
};

struct Toy {
  Toy() {
    auto owned = std::make_unique<ToyNetwork>();
    network = owned.get();
    model.network = std::move(owned);
    model.info.vocab_size = kVocab;
    model.info.max_positions = 64;
  }
  Model model;
  ToyNetwork* network;
};

// Draws up to three tokens a launch, and none from launch `stuck_at` on.
class DrawingStep : public decode::StepExecutor {
 public:
  explicit DrawingStep(ToyNetwork& toy) : toy_(toy) {}
  mx::array forward(const mx::array& tokens, Cache& cache) override {
    return toy_.forward(tokens, cache, true);
  }
  int most_drawn(const SamplerOptions&, const Cache&) const override {
    return 3;
  }
  mx::array draw(
      const mx::array& token,
      Cache& cache,
      const SamplerOptions&,
      uint64_t,
      int count) override {
    counts.push_back(count);
    if (int(counts.size()) >= stuck_at) {
      return mx::full({count}, -1, mx::int32);
    }
    std::vector<mx::array> drawn = {token};
    for (int i = 0; i < count; ++i) {
      const auto logits = forward(mx::reshape(drawn.back(), {1, 1}), cache);
      drawn.push_back(
          mx::astype(mx::reshape(mx::argmax(logits, -1), {1}), mx::int32));
    }
    drawn.erase(drawn.begin());
    return mx::concatenate(drawn);
  }
  void settle() override {
    if (int(counts.size()) >= stuck_at) {
      throw BackendError("stuck");
    }
  }

  std::vector<int> counts; // of every launch
  int stuck_at = 1000;

 private:
  ToyNetwork& toy_;
};

struct DrawingToy : Toy {
  DrawingToy() : step(std::make_shared<DrawingStep>(*network)) {
    model.network = std::make_unique<decode::FusedNetwork>(
        std::move(model.network), step, 0);
  }
  std::shared_ptr<DrawingStep> step;
};

std::vector<int> expected_answer(const std::vector<int>& prompt, int count) {
  int hash = 1;
  for (const int token : prompt) {
    hash = next_hash(hash, token);
  }
  std::vector<int> answer;
  while (int(answer.size()) < count) {
    answer.push_back(hash % kVocab);
    hash = next_hash(hash, answer.back());
  }
  return answer;
}

std::vector<int> tokens_of(Generation generation) {
  std::vector<int> tokens;
  for (const auto& piece : generation) {
    tokens.push_back(piece.token);
  }
  return tokens;
}

const std::vector<int> kPrompt = {5, 3, 8, 13, 21, 34, 55, 2, 9, 1};

TEST(Generate, FollowsTheNetworkGreedily) {
  Toy toy;
  EXPECT_EQ(
      tokens_of(generate(toy.model, kPrompt, {.max_tokens = 20})),
      expected_answer(kPrompt, 20));
}

TEST(Generate, GivesTheSameForEveryPrefillStep) {
  for (const int step : {1, 2, 3, 5, 9, 10, 11, 512}) {
    Toy toy;
    GenerateOptions options{.max_tokens = 5, .prefill_step = step};
    EXPECT_EQ(
        tokens_of(generate(toy.model, kPrompt, options)),
        expected_answer(kPrompt, 5))
        << step;
  }
}

TEST(Generate, FeedsEachTokenOnceAndNoneAfterTheLast) {
  Toy toy;
  tokens_of(generate(toy.model, kPrompt, {.max_tokens = 4, .prefill_step = 4}));
  EXPECT_EQ(toy.network->lengths, (std::vector<int>{4, 4, 2, 1, 1, 1}));
}

TEST(Generate, TellsWhyItEndsAndCounts) {
  Toy toy;
  Generation generation = generate(toy.model, kPrompt, {.max_tokens = 3});
  Piece piece;
  for (int i = 1; i <= 3; ++i) {
    ASSERT_TRUE(generation.next(piece));
    EXPECT_EQ(piece.finish_reason, i < 3 ? "" : "length");
    EXPECT_EQ(piece.prompt_tokens, int(kPrompt.size()));
    EXPECT_EQ(piece.generated_tokens, i);
    EXPECT_EQ(piece.text, "");
    EXPECT_GT(piece.prompt_seconds, 0);
  }
  EXPECT_FALSE(generation.next(piece));
  EXPECT_FALSE(generation.next(piece));
}

TEST(Generate, StopsAtAnEndToken) {
  const auto answer = expected_answer(kPrompt, 10);
  Toy toy;
  toy.model.info.eos_ids = {kVocab + 1, answer[3]};
  Generation generation = generate(toy.model, kPrompt);
  Piece piece;
  while (generation.next(piece)) {
  }
  EXPECT_EQ(piece.finish_reason, "stop");
  EXPECT_EQ(piece.token, answer[3]);
  EXPECT_EQ(piece.generated_tokens, 4);

  const GenerateOptions on{.max_tokens = 10, .stop_at_eos = false};
  EXPECT_EQ(tokens_of(generate(toy.model, kPrompt, on)), answer);
}

TEST(Generate, EndsWhereTheContextEnds) {
  Toy toy;
  toy.model.info.max_positions = int(kPrompt.size()) + 2;
  EXPECT_EQ(
      tokens_of(generate(toy.model, kPrompt)), expected_answer(kPrompt, 3));
  EXPECT_EQ(toy.network->lengths, (std::vector<int>{10, 1, 1}));
}

TEST(Generate, ReportsProgressOfThePrompt) {
  Toy toy;
  std::vector<std::pair<int, int>> seen;
  GenerateOptions options{.max_tokens = 1, .prefill_step = 4};
  options.progress = [&](int done, int total) {
    seen.emplace_back(done, total);
  };
  tokens_of(generate(toy.model, kPrompt, options));
  const std::vector<std::pair<int, int>> want = {
      {0, 10}, {4, 10}, {8, 10}, {10, 10}};
  EXPECT_EQ(seen, want);
}

TEST(Generate, DrawsTheSameFromTheSameSeed) {
  GenerateOptions options{.max_tokens = 30};
  options.sampler = {.temperature = 3, .seed = 9};
  Toy toy;
  const auto first = tokens_of(generate(toy.model, kPrompt, options));
  EXPECT_EQ(tokens_of(generate(toy.model, kPrompt, options)), first);
  EXPECT_NE(first, expected_answer(kPrompt, 30));
  options.sampler.seed = 10;
  EXPECT_NE(tokens_of(generate(toy.model, kPrompt, options)), first);
}

TEST(Generate, TakesLogitsOfHalfPrecision) {
  Toy toy;
  toy.network->dtype = mx::bfloat16;
  EXPECT_EQ(
      tokens_of(generate(toy.model, kPrompt, {.max_tokens = 8})),
      expected_answer(kPrompt, 8));
}

TEST(Generate, EndsAfterAnError) {
  for (const int call : {1, 2, 3, 5}) {
    Toy toy;
    toy.network->throw_at_call = call;
    Generation generation =
        generate(toy.model, kPrompt, {.max_tokens = 9, .prefill_step = 6});
    Piece piece;
    const auto drain = [&] {
      while (generation.next(piece)) {
      }
    };
    EXPECT_THROW(drain(), std::runtime_error) << call;
    EXPECT_FALSE(generation.next(piece)) << call;
    // The model itself is as good as before.
    EXPECT_EQ(
        tokens_of(generate(toy.model, kPrompt, {.max_tokens = 4})),
        expected_answer(kPrompt, 4));
  }
}

TEST(Generate, TakesTokensThatTheExecutorDraws) {
  DrawingToy toy;
  EXPECT_EQ(
      tokens_of(generate(toy.model, kPrompt, {.max_tokens = 9})),
      expected_answer(kPrompt, 9));
  EXPECT_EQ(toy.step->counts, (std::vector<int>{3, 3, 2}));
}

TEST(Generate, SaysSoWhenALaunchGaveUp) {
  DrawingToy toy;
  toy.step->stuck_at = 2;
  auto generation = generate(toy.model, kPrompt, {.max_tokens = 9});
  std::vector<int> tokens;
  Piece piece;
  EXPECT_THROW(
      while (generation.next(piece)) { tokens.push_back(piece.token); },
      BackendError);
  EXPECT_EQ(tokens, expected_answer(kPrompt, 4));
}

TEST(Generate, CanBeLeftEarly) {
  Toy toy;
  Piece piece;
  {
    Generation generation = generate(toy.model, kPrompt);
    ASSERT_TRUE(generation.next(piece));
  }
  Generation moved = generate(toy.model, kPrompt);
  ASSERT_TRUE(moved.next(piece));
  Generation other = std::move(moved);
  ASSERT_TRUE(other.next(piece));
  EXPECT_EQ(piece.token, expected_answer(kPrompt, 2)[1]);
}

TEST(Generate, RefusesWhatCannotBeGenerated) {
  Toy toy;
  const auto refuses = [&](std::vector<int> prompt, GenerateOptions options) {
    EXPECT_THROW(
        generate(toy.model, std::move(prompt), std::move(options)),
        std::invalid_argument);
  };
  refuses({}, {});
  refuses(std::vector<int>(65, 1), {});
  refuses({1, kVocab}, {});
  refuses({1, -1}, {});
  refuses({1}, {.max_tokens = 0});
  refuses({1}, {.max_tokens = -1});
  refuses({1}, {.prefill_step = 0});
  refuses({1}, {.sampler = {.temperature = -1}});
  EXPECT_THROW(generate(toy.model, std::string("text")), std::invalid_argument);
  EXPECT_TRUE(toy.network->lengths.empty());
}

TEST(Prefill, ReturnsTheLastLogits) {
  Toy toy;
  Cache cache = toy.network->make_cache();
  const mx::array logits = prefill(toy.model, cache, kPrompt, 3);
  EXPECT_EQ(logits.shape(), mx::Shape{kVocab});
  EXPECT_EQ(logits.dtype(), mx::float32);
  EXPECT_EQ(
      int(mx::argmax(logits).item<uint32_t>()), expected_answer(kPrompt, 1)[0]);
}

} // namespace
} // namespace zmlx
