// SPDX-License-Identifier: MIT
#include "zmlx/measure/router_ties.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "zmlx/measure/fake_model.h"
#include "zmlx/measure/validate_report.h"
#include "zmlx/measure/verdict.h"

namespace zmlx::measure {
namespace {

using testing::FakeModel;
using testing::small_options;
using Score = moe::RouterSpec::Score;

moe::RouterSpec one_of(Score score) {
  moe::RouterSpec spec;
  spec.score = score;
  spec.top_k = 1;
  return spec;
}

TEST(RouterGap, IsThePartOfTheLargestLogitThatTwoMustMove) {
  // 0.5 and 0.5 - 2e-3 meet where each moves by 1e-3, of 4: 2.5e-4.
  const std::vector<float> logits = {0.5f, -4, 0.498f};
  for (const Score score : {Score::Sigmoid, Score::Softmax}) {
    EXPECT_NEAR(router_gap(one_of(score), logits, nullptr), 2.5e-4, 2e-6);
  }
}

TEST(RouterGap, CountsTheBiasByWhichExpertsAreChosen) {
  const auto sigmoid = [](double z) { return 1 / (1 + std::exp(-z)); };
  // A bias that makes the first as good as the second.
  const double apart = sigmoid(1.5) - sigmoid(0.5);
  const std::vector<float> logits = {0.5f, 1.5f};
  const std::vector<float> level = {static_cast<float>(apart), 0};
  const auto spec = one_of(Score::Sigmoid);
  EXPECT_LT(std::abs(router_gap(spec, logits, level.data())), 1e-6);
  EXPECT_GT(router_gap(spec, logits, nullptr), 0.3);
}

TEST(RouterGap, IsNoneWhereAllAreChosenOrGroupsComeFirst) {
  auto spec = one_of(Score::Softmax);
  const std::vector<float> level = {1, 1};
  EXPECT_EQ(router_gap(spec, level, nullptr), 0);
  spec.groups = 2;
  EXPECT_TRUE(std::isinf(router_gap(spec, level, nullptr)));
  spec.groups = 1;
  spec.top_k = 2;
  EXPECT_TRUE(std::isinf(router_gap(spec, level, nullptr)));
}

/// Patched tells another token at the row after so many, and stock's router has
/// a gap there and one of a half elsewhere.
struct Tied : FakeModel {
  Tied(int parts_at, int tied_at, float gap)
      : FakeModel([=](std::vector<float>& row, int position) {
          if (position >= parts_at) {
            row[7] = 50;
          }
        }) {
    network->route_by(
        [=](int position) {
          const float apart = position == tied_at ? gap : 0.5f;
          return std::vector<float>{1 - 2 * apart, 1, -1};
        },
        one_of(Score::Sigmoid));
  }
  ValidateResult run() {
    return validate(model, small_options(), sides);
  }
};

TEST(RouterTies, EndWhatIsJudgedOfAPrompt) {
  // Prompts of 3, 1 and 2 tokens and 12 steps: 9, 11 and 10 before row 12.
  Tied fake(12, 12, 1e-6f);
  const auto result = fake.run();
  EXPECT_TRUE(result.pass());
  EXPECT_LT(result.matched(), result.total());
  ASSERT_TRUE(result.prompts[0].tie);
  EXPECT_EQ(result.prompts[0].tie->step, 9);
  EXPECT_NEAR(result.prompts[0].tie->gap, 1e-6, 1e-7);
  EXPECT_EQ(judged_steps(result.prompts[1]), 11u);
  const auto text = to_text(result);
  EXPECT_NE(text.find("of a tie: not judged from there on"), text.npos) << text;
  EXPECT_NE(text.find("follow a tie of stock's router"), text.npos) << text;
  const auto json = to_capsule(result, "").models[0].prompts[0];
  EXPECT_EQ(json["router_tie"]["judged_steps"], 9);
}

TEST(RouterTies, ExcuseNothingElsewhere) {
  Tied fake(12, 11, 1e-6f); // the row before
  const auto result = fake.run();
  ASSERT_TRUE(result.prompts[0].tie);
  EXPECT_GT(result.prompts[0].tie->gap, 0.4);
  ASSERT_FALSE(result.pass());
  EXPECT_EQ(result.failures[0].find("L1: prompt 1 diverges at token 9"), 0u);
}

TEST(RouterTies, ExcuseNothingThatRoundingCannotDecide) {
  EXPECT_FALSE(Tied(12, 12, 2e-5f).run().pass());
}

TEST(RouterTies, MustLeaveHalfOfTheSteps) {
  const auto result = Tied(6, 6, 1e-6f).run(); // 3, 5 and 4 before row 6
  ASSERT_EQ(result.failures.size(), 1u);
  EXPECT_EQ(
      result.failures[0],
      "L1: half of the steps must come before ties of stock's routers, 12 of "
      "36 do.");
}

TEST(RouterTies, AreLookedForWhereAPromptFailsOnly) {
  FakeModel fake;
  int asked = 0;
  fake.network->route_by(
      [&asked](int) {
        ++asked;
        return std::vector<float>{1, 1};
      },
      one_of(Score::Sigmoid));
  const auto gate = fake.network->block->gate;
  EXPECT_FALSE(
      validate(fake.model, small_options(), fake.sides).prompts[0].tie);
  const int once = asked;
  {
    RouterWatch watch(*fake.network);
    EXPECT_NE(fake.network->block->gate, gate);
    EXPECT_TRUE(std::isinf(watch.least_gap()));
  }
  EXPECT_EQ(fake.network->block->gate, gate);
  EXPECT_GT(once, 0);
}

} // namespace
} // namespace zmlx::measure
