// SPDX-License-Identifier: MIT
#include "zmlx/measure/compare.h"

#include <gtest/gtest.h>

#include "zmlx/base/error.h"
#include "zmlx/measure/capsule.h"

namespace zmlx::measure {
namespace {

using Samples = std::vector<double>;
using Verdict = Comparison::Verdict;

Json bench_row(const Samples& samples, int gen = 128) {
  return {
      {"cpu_info", "c"},
      {"n_prompt", gen > 0 ? 0 : 512},
      {"n_gen", gen},
      {"n_depth", 0},
      {"samples_ts", samples},
      {"side", "patched"},
      {"peak_mem_gb", 1.0}};
}

CompareResult compared(const Json& before, const Json& after) {
  return compare_json(before, "a.json", after, "b.json");
}

Verdict decode_verdict(const Samples& before, const Samples& after) {
  const auto result = compared(
      Json::array({bench_row(before)}), Json::array({bench_row(after)}));
  EXPECT_EQ(result.comparisons.at(0).name, "tg128 patched");
  EXPECT_EQ(result.good(), result.comparisons[0].verdict != Verdict::kWorse);
  return result.comparisons[0].verdict;
}

Json capsule_json(double decode, const std::string& verdict, double peak) {
  Capsule capsule;
  capsule.meta.device = "d";
  CapsuleModel model;
  model.key = model.model = "m";
  model.verdict = verdict;
  model.matched = model.total = 10;
  model.patched.decode_tok_s = {decode};
  model.patched.prefill_tok_s = {100};
  model.patched.peak_mem_gb = peak;
  capsule.models = {model};
  return to_json(capsule);
}

TEST(Compare, CallsChangesWithinTheFloorTheSame) {
  EXPECT_EQ(
      decode_verdict({100, 100, 100}, {98.5, 98.5, 98.5}), Verdict::kSame);
  EXPECT_EQ(decode_verdict({100, 100, 100}, {101, 101, 101}), Verdict::kSame);
}

TEST(Compare, CallsChangesBeyondTheFloorByName) {
  EXPECT_EQ(decode_verdict({100, 100, 100}, {97, 97, 97}), Verdict::kWorse);
  EXPECT_EQ(decode_verdict({100, 100, 100}, {103, 103, 103}), Verdict::kBetter);
}

TEST(Compare, ForgivesWhatTheSpreadExplains) {
  // The quartiles of the second are 85 and 100: 16 % of its median.
  EXPECT_EQ(
      decode_verdict({100, 100, 100}, {80, 90, 95, 100, 110}), Verdict::kSame);
  EXPECT_EQ(
      decode_verdict({80, 90, 95, 100, 110}, {70, 70, 70}), Verdict::kWorse);
}

TEST(Compare, OneInterruptedRunIsNoExcuse) {
  EXPECT_EQ(
      decode_verdict({100, 100, 100, 100, 20}, {90, 90, 90, 90, 90}),
      Verdict::kWorse);
}

TEST(Compare, SamplesThatAreMissingAreWorse) {
  EXPECT_EQ(decode_verdict({100}, {}), Verdict::kWorse);
}

TEST(Compare, PrefillHasAWiderFloor) {
  const auto result = compared(
      Json::array({bench_row({100}, 0)}), Json::array({bench_row({97.5}, 0)}));
  EXPECT_EQ(result.comparisons[0].name, "pp512 patched");
  EXPECT_TRUE(result.good());
}

TEST(Compare, TellsRowsThatOnlyOneHas) {
  const auto result = compared(
      Json::array({bench_row({1}), bench_row({1}, 64)}),
      Json::array({bench_row({1}), bench_row({1}, 0)}));
  EXPECT_EQ(
      result.unmatched,
      (std::vector<std::string>{
          "tg64 patched (only before)", "pp512 patched (only after)"}));
}

TEST(Compare, SeesWorseFidelityMemoryAndSpeedOfCapsules) {
  const Json base = capsule_json(50, "PASS", 4);
  EXPECT_TRUE(compared(base, base).good());
  EXPECT_TRUE(compared(base, capsule_json(60, "PASS", 3)).good());
  EXPECT_FALSE(compared(base, capsule_json(40, "PASS", 4)).good());
  EXPECT_FALSE(compared(base, capsule_json(50, "FAIL", 4)).good());
  EXPECT_FALSE(compared(base, capsule_json(50, "PASS", 4.3)).good());
  EXPECT_TRUE(compared(base, capsule_json(50, "PASS", 4.1)).good());
  EXPECT_TRUE(compared(capsule_json(50, "FAIL", 4), capsule_json(50, "FAIL", 4))
                  .good());
}

TEST(Compare, SmallMemoryMayGrowByTheFixedAmount) {
  EXPECT_TRUE(
      compared(capsule_json(1, "PASS", 0.04), capsule_json(1, "PASS", 0.08))
          .good());
  EXPECT_FALSE(
      compared(capsule_json(1, "PASS", 0.04), capsule_json(1, "PASS", 0.1))
          .good());
}

TEST(Compare, WarnsOfOtherDevices) {
  Json other = capsule_json(50, "PASS", 4);
  other["meta"]["device"] = "e";
  const auto result = compared(capsule_json(50, "PASS", 4), other);
  ASSERT_EQ(result.warnings.size(), 1u);
  EXPECT_EQ(result.warnings[0], "device differs: 'd' before, 'e' after");
}

TEST(Compare, RejectsWhatCannotBeCompared) {
  const Json bench = Json::array({bench_row({1})});
  EXPECT_THROW(compared(bench, capsule_json(1, "PASS", 1)), FileError);
  EXPECT_THROW(compared(bench, Json::array()), FileError);
  EXPECT_THROW(compared(bench, Json::array({bench_row({1}, 7)})), FileError);
  EXPECT_THROW(compared(bench, Json::array({1})), FileError);
  EXPECT_THROW(compared(Json(1), Json(2)), FileError);
  Json bad = bench;
  bad[0]["samples_ts"] = "fast";
  try {
    compared(bench, bad);
    FAIL();
  } catch (const FileError& error) {
    EXPECT_STREQ(
        error.what(),
        "b.json: '[0].samples_ts' must be an array, got \"fast\".");
  }
  EXPECT_THROW(compare_files("/no/a.json", "/no/b.json"), FileError);
}

TEST(Compare, PrintsATableAndTheRule) {
  const auto text = to_text(compared(
      Json::array({bench_row({100, 100, 100})}),
      Json::array({bench_row({90, 90, 90})})));
  EXPECT_EQ(
      text,
      "Figure                         Before       After   Change    Noise  "
      "Verdict\n"
      "tg128 patched                     100          90   -10.0%     2.0%  "
      "WORSE\n"
      "tg128 patched peak memory           1           1    +0.0%     5.0%  "
      "same\n"
      "REGRESSION (" +
          compare_rules() + ")\n");
}

} // namespace
} // namespace zmlx::measure
