// SPDX-License-Identifier: MIT
#include "zmlx/measure/validate.h"

#include <limits>
#include <stdexcept>

#include <gtest/gtest.h>

#include "zmlx/measure/fake_model.h"
#include "zmlx/measure/prompts.h"
#include "zmlx/measure/stepper.h"

namespace zmlx::measure {
namespace {

using testing::FakeModel;
using testing::kVocab;
using testing::noise;
using testing::small_options;

std::string failures_of(const ValidateResult& result) {
  std::string text;
  for (const auto& failure : result.failures) {
    text += failure + '\n';
  }
  return text;
}

ValidateResult run(FakeModel& fake) {
  return validate(fake.model, small_options(), fake.sides);
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Validate, PassesEqualSidesOnEveryLevel) {
  FakeModel fake;
  const auto result = run(fake);
  EXPECT_TRUE(result.pass()) << failures_of(result);
  EXPECT_EQ(result.closeness.steps, 36u);
  EXPECT_EQ(result.closeness.equal_steps, 36u);
  EXPECT_EQ(result.matched(), 36);
  EXPECT_EQ(result.total(), 36);
  EXPECT_FALSE(result.oracle);
  EXPECT_EQ(result.repeat.steps, 36u);
  ASSERT_TRUE(result.one_thread);
  EXPECT_EQ(result.one_thread->steps, 36u);
  EXPECT_EQ(result.patched.installed.size(), 3u);
  EXPECT_EQ(result.stock_speed.decode_tok_s.size(), 2u);
  EXPECT_EQ(result.patched_speed.prefill_tok_s.size(), 2u);
  EXPECT_EQ(result.timed_prompt_tokens, 3);
  EXPECT_EQ(result.timed_tokens, 12);
}

TEST(Validate, MeasuresACacheOfFewerBitsAgainstTheWholeOne) {
  FakeModel fake;
  ValidateOptions options = small_options();
  EXPECT_FALSE(validate(fake.model, options, fake.sides).packed_cache);
  options.kv.bits = 8;
  const auto result = validate(fake.model, options, fake.sides);
  ASSERT_TRUE(result.packed_cache);
  EXPECT_EQ(result.packed_cache->steps, 36u);
  EXPECT_EQ(result.packed_cache->max_kld(), 0);
  options.kv.bits = 7;
  EXPECT_THROW(
      validate(fake.model, options, fake.sides), std::invalid_argument);
}

TEST(Validate, LeavesTheModelStockAndTheThreadsAsTheyWere) {
  FakeModel fake;
  run(fake);
  EXPECT_FALSE(fake.network->patched);
  EXPECT_EQ(fake.threads, 4);
  fake.network->patched = true; // found patched, so made stock first
  EXPECT_EQ(run(fake).closeness.equal_steps, 36u);
  EXPECT_FALSE(fake.network->patched);
}

// Positions count the prompt too: prompt 2 has one token, so its step 5 is the
// row after 6 tokens; the fault also hits the other prompts at theirs.
TEST(Validate, FailsAWrongTokenAtLevelOne) {
  FakeModel fake([](std::vector<float>& row, int position) {
    if (position == 6) {
      row[7] = 50;
    }
  });
  const auto result = run(fake);
  EXPECT_FALSE(result.pass());
  const auto& prompt = result.prompts[1];
  EXPECT_EQ(prompt.first_divergence, 5);
  ASSERT_EQ(prompt.closeness.flips.size(), 1u);
  EXPECT_EQ(prompt.closeness.flips[0].patched_token, 7);
  EXPECT_DOUBLE_EQ(prompt.divergence_margin, prompt.closeness.flips[0].margin);
  EXPECT_GT(prompt.divergence_margin, 0);
  EXPECT_EQ(prompt.patched[5], 7);
  EXPECT_EQ(prompt.patched.size(), 12u);
  EXPECT_LT(prompt.matched, 12);
  EXPECT_GE(prompt.matched, 5);
  EXPECT_TRUE(has(failures_of(result), "L1: prompt 2 diverges at token 5"))
      << failures_of(result);
}

TEST(Validate, MarginIsOfStocksTwoBestThere) {
  FakeModel fake([](std::vector<float>& row, int position) {
    if (position == 3) {
      row[9] = 50;
    }
  });
  const auto result = run(fake);
  Stepper stock(fake.model, {1, 2, 3});
  std::vector<float> logits(stock.logits().begin(), stock.logits().end());
  std::sort(logits.rbegin(), logits.rend());
  EXPECT_EQ(result.prompts[0].first_divergence, 0);
  EXPECT_DOUBLE_EQ(
      result.prompts[0].divergence_margin, double{logits[0]} - logits[1]);
}

TEST(Validate, FailsAPerturbationThatFlipsNothingAtLevelTwo) {
  FakeModel fake(noise(2e-3f, 1));
  const auto result = run(fake);
  EXPECT_EQ(result.matched(), result.total());
  EXPECT_EQ(result.closeness.equal_steps, 0u);
  ASSERT_EQ(result.failures.size(), 1u) << failures_of(result);
  EXPECT_TRUE(has(result.failures[0], "L2: mean KLD must be at most 1e-07"));
}

TEST(Validate, PassesARoundingError) {
  FakeModel fake(noise(1e-5f, 1));
  const auto result = run(fake);
  EXPECT_TRUE(result.pass()) << failures_of(result);
  EXPECT_EQ(result.closeness.equal_steps, 0u);
  EXPECT_GT(result.closeness.max_kld(), 0);
}

TEST(Validate, FailsWhatDoesNotRepeat) {
  int calls = 0;
  FakeModel fake([&calls](std::vector<float>& row, int) {
    row[3] += 1e-6f * static_cast<float>(++calls % 1000);
  });
  const auto result = run(fake);
  EXPECT_FALSE(result.repeat.good());
  EXPECT_TRUE(has(
      failures_of(result), "Determinism: a second patched run must repeat"));
  EXPECT_FALSE(has(failures_of(result), "L1"));
}

TEST(Validate, FailsWhatDependsOnTheThreads) {
  FakeModel* self = nullptr;
  FakeModel fake([&self](std::vector<float>& row, int) {
    row[3] += self->threads == 1 ? 1e-6f : 0;
  });
  self = &fake;
  const auto result = run(fake);
  EXPECT_TRUE(result.repeat.good());
  EXPECT_EQ(result.one_thread->equal_steps, 0u);
  ASSERT_EQ(result.failures.size(), 1u);
  EXPECT_TRUE(has(
      result.failures[0],
      "a run on one thread must repeat bit for bit, 36 of 36 steps differ"));
}

TEST(Validate, FailsNaN) {
  FakeModel fake([](std::vector<float>& row, int position) {
    if (position == 4) {
      row[0] = std::numeric_limits<float>::quiet_NaN();
    }
  });
  const auto result = run(fake);
  EXPECT_TRUE(has(failures_of(result), "must have no NaN or infinity, 3 of"))
      << failures_of(result);
  EXPECT_TRUE(has(failures_of(result), "L2: mean KLD must be at most"));
}

TEST(Validate, PassesNarrowTypesThatAreNearerToTheOracle) {
  FakeModel fake(noise(0.02f, 1), mx::bfloat16);
  fake.network->stock_fault = noise(0.1f, 2);
  const auto result = run(fake);
  ASSERT_TRUE(result.oracle);
  EXPECT_EQ(result.oracle->steps(), 36u);
  EXPECT_LT(result.oracle->patched_rms(), result.oracle->stock_rms());
  EXPECT_TRUE(result.pass()) << failures_of(result);
}

TEST(Validate, FailsNarrowTypesThatAreFurtherFromTheOracle) {
  FakeModel fake(noise(0.1f, 1), mx::bfloat16);
  fake.network->stock_fault = noise(0.02f, 2);
  const auto text = failures_of(run(fake));
  EXPECT_TRUE(has(text, "L3: patched's RMS error must be at most 1.05"))
      << text;
  EXPECT_TRUE(has(text, "L3: patched's mean KLD to the oracle")) << text;
}

TEST(Validate, FailsAFlipAboveTheOraclesNoise) {
  FakeModel fake(
      [](std::vector<float>& row, int position) {
        if (position == 6) {
          row[7] = 9;
        }
      },
      mx::float16);
  fake.network->stock_fault = noise(0.02f, 2);
  const auto text = failures_of(run(fake));
  EXPECT_TRUE(has(text, "flips at token")) << text;
  EXPECT_TRUE(has(text, "above the noise of 0.0")) << text;
}

TEST(Validate, ForgivesAFlipToTheOraclesChoice) {
  FakeModel fake({}, mx::float16); // patched is the oracle's equal
  fake.network->stock_fault = [](std::vector<float>& row, int position) {
    if (position == 6) {
      row[7] = 9;
    }
  };
  const auto result = run(fake);
  ASSERT_EQ(result.closeness.flips.size(), 3u);
  EXPECT_TRUE(result.closeness.flips[0].oracle_agrees());
  EXPECT_TRUE(result.pass()) << failures_of(result);
}

TEST(Validate, UsesRandomPromptsWithoutATokenizer) {
  FakeModel fake;
  ValidateOptions options;
  options.max_tokens = 2;
  options.runs = 1;
  auto result = validate(fake.model, options, fake.sides);
  ASSERT_EQ(result.prompts.size(), 5u);
  EXPECT_EQ(result.prompts[4].prompt.size(), 64u);
  fake.model.info.max_positions = 20;
  result = validate(fake.model, options, fake.sides);
  EXPECT_EQ(result.prompts[4].prompt.size(), 10u);
}

TEST(Validate, StopsWhereTheContextEnds) {
  FakeModel fake;
  fake.model.info.max_positions = 8;
  const auto result = run(fake);
  EXPECT_EQ(result.prompts[0].stock.size(), 5u);
  EXPECT_EQ(result.prompts[1].stock.size(), 7u);
}

TEST(Validate, RejectsWrongOptions) {
  FakeModel fake;
  const auto rejects = [&](auto change) {
    ValidateOptions options = small_options();
    change(options);
    EXPECT_THROW(
        validate(fake.model, options, fake.sides), std::invalid_argument);
  };
  rejects([](ValidateOptions& options) { options.max_tokens = 0; });
  rejects([](ValidateOptions& options) { options.runs = 0; });
  rejects([](ValidateOptions& options) { options.token_prompts = {{}}; });
  rejects([](ValidateOptions& options) { options.token_prompts = {{kVocab}}; });
  rejects([](ValidateOptions& options) { options.token_prompts = {{-1}}; });
  rejects([](ValidateOptions& options) { options.prompts = {"text"}; });
  fake.model.info.max_positions = 3;
  rejects([](ValidateOptions&) {});
}

TEST(Validate, UndoesThePatchWhenTheCallerStops) {
  FakeModel fake;
  struct Stop {};
  for (const char* phase : {"Patched, prompt 2", "Patched, one thread"}) {
    ValidateOptions options = small_options();
    options.progress = [&](const std::string& now, long, long) {
      if (now.rfind(phase, 0) == 0) {
        throw Stop();
      }
    };
    EXPECT_THROW(validate(fake.model, options, fake.sides), Stop);
    EXPECT_FALSE(fake.network->patched);
    EXPECT_EQ(fake.threads, 4);
  }
}

TEST(Validate, PatchesOnceAGroupAndARound) {
  FakeModel fake;
  int patches = 0;
  fake.sides.patch = [&, patch = fake.sides.patch](Model& model) {
    ++patches;
    return patch(model);
  };
  run(fake);
  // The proof; then stock, patched, patched, stock.
  EXPECT_EQ(patches, 2);
}

// Logits of such a vocabulary take more than is kept of one prompt at once.
TEST(Validate, TakesLargeVocabulariesPromptByPrompt) {
  FakeModel fake;
  fake.model.info.vocab_size = 30'000'000;
  int patches = 0;
  fake.sides.patch = [&, patch = fake.sides.patch](Model& model) {
    ++patches;
    return patch(model);
  };
  const auto result = run(fake);
  EXPECT_EQ(result.closeness.equal_steps, 36u);
  EXPECT_EQ(result.repeat.equal_steps, 36u);
  EXPECT_EQ(patches, 3 + 1); // a prompt each, and the timing
}

TEST(Prompts, RandomTokensAreTheSameEverywhere) {
  const auto tokens = random_tokens(4, 1000, 1);
  // SplitMix64 of seed 1, from its reference implementation.
  const std::vector<int> expected = {
      int(0x910a2dec89025cc1u % 1000),
      int(0xbeeb8da1658eec67u % 1000),
      int(0xf893a2eefb32555eu % 1000),
      int(0x71c18690ee42c90bu % 1000)};
  EXPECT_EQ(tokens, expected);
  EXPECT_NE(random_tokens(4, 1000, 2), tokens);
}

} // namespace
} // namespace zmlx::measure
