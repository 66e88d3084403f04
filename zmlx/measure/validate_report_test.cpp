// SPDX-License-Identifier: MIT
#include "zmlx/measure/validate_report.h"

#include <gtest/gtest.h>

#include "zmlx/measure/fake_model.h"

namespace zmlx::measure {
namespace {

// A result with speeds that do not change from run to run.
ValidateResult timed(testing::FakeModel& fake) {
  auto result = validate(fake.model, testing::small_options(), fake.sides);
  result.stock_speed = {{100, 110}, {20, 22}, 2'000'000'000};
  result.patched_speed = {{200, 220}, {63, 63}, 1'500'000'000};
  result.peak_is_of_side = true;
  return result;
}

TEST(ValidateReport, OfAPass) {
  testing::FakeModel fake;
  const std::string rule(60, '=');
  const std::string expected = rule + "\n  Baseline (stock MLX)\n" + rule +
      R"(
  Run 1/2 ...  prompt=100.0 tok/s  gen=20.0 tok/s
  Run 2/2 ...  prompt=110.0 tok/s  gen=22.0 tok/s
)" + rule +
      "\n  Patched\n" + rule + R"(
  Run 1/2 ...  prompt=200.0 tok/s  gen=63.0 tok/s
  Run 2/2 ...  prompt=220.0 tok/s  gen=63.0 tok/s
)" + rule +
      "\n  VALIDATION REPORT\n" + rule + R"(
Model:     fake (affine 4 bit, group 64, activations float32)
Patterns:  moe_mlp, rmsnorm (3 modules)
Tokens:    3 prompts, 36 tokens (at most 12 each)

FIDELITY:  36/36 tokens identical [PASS]
  L0 bitwise logits   36/36 steps
  L1 greedy tokens    3/3 prompts identical
  L2 against stock    KLD mean 0.00e+00, 99.9% 0.00e+00, max 0.00e+00; same top 100.000% +- 0.000%
  L3 against float32  stock is the oracle itself (float32 activations)
  Repeats bitwise     yes (36/36 steps)
  1 thread as 4       yes (36/36 steps)
  Rule: tokens identical on every prompt, mean KLD <= 1e-07, up to where stock's router is tied to 1e-05 if that is where they part; bitwise repeats

Config      Prompt tok/s  Decode tok/s      Peak Mem
Baseline           105.0          21.0       2.00 GB
Patched            210.0          63.0       1.50 GB
Speedup           2.000x        3.000x
Medians of 2 interleaved runs of 3 prompt and 12 new tokens; spread (worst to best) of decode: baseline 9.5%, patched 0.0%.
)";
  EXPECT_EQ(to_text(timed(fake)), expected);
}

TEST(ValidateReport, OfAFailureSaysWhere) {
  testing::FakeModel fake([](std::vector<float>& row, int position) {
    if (position == 6) {
      row[7] = 50;
    }
  });
  const auto result = timed(fake);
  const std::string text = to_text(result);
  EXPECT_NE(text.find("tokens identical [FAIL]"), std::string::npos) << text;
  EXPECT_NE(text.find("  First divergence of prompt 2 at token 5"), text.npos);
  EXPECT_NE(text.find("  Flip: prompt 2, token 5: "), text.npos);
  EXPECT_NE(text.find("  FAIL L1: prompt 2 diverges at token 5"), text.npos);
  EXPECT_EQ(to_capsule(result, "").models[0].verdict, "FAIL");
}

TEST(ValidateReport, ExplainsAPassWithOtherTokens) {
  testing::FakeModel fake(testing::noise(0.2f, 1), mx::bfloat16);
  fake.network->stock_fault = testing::noise(1.f, 2);
  const auto result = timed(fake);
  ASSERT_TRUE(result.pass());
  ASSERT_GT(result.closeness.flips.size(), 0u);
  const std::string text = to_text(result);
  EXPECT_NE(
      text.find("Tokens that differ lie within stock's own error"), text.npos);
  EXPECT_NE(text.find("L3 against float32  RMS error stock"), text.npos);
}

TEST(ValidateReport, SaysWhenPeaksAreNotOfTheSide) {
  testing::FakeModel fake;
  auto result = timed(fake);
  result.peak_is_of_side = false;
  EXPECT_NE(to_text(result).find("cannot be reset"), std::string::npos);
}

} // namespace
} // namespace zmlx::measure
