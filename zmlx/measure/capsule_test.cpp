// SPDX-License-Identifier: MIT
#include "zmlx/measure/capsule.h"

#include <cstdio>
#include <filesystem>

#include <gtest/gtest.h>

#include "zmlx/base/error.h"
#include "zmlx/measure/fake_model.h"
#include "zmlx/measure/report.h"
#include "zmlx/measure/validate_report.h"

namespace zmlx::measure {
namespace {

// As the reference's tool would read it: its skeleton, and two runs a side.
constexpr const char* kReference = R"({
"meta": {"date": "2026-02-08", "device": "Apple M4 Max", "memory_gb": 36,
  "macos": "26.1", "mlx_version": "0.30.1", "zmlx_version": "0.7.11",
  "git_commit": "0123456789abcdef", "python": "3.14.2",
  "command_4bit": "python -m zmlx.validate A", "command_8bit": "B"},
"lfm2_4bit": {"model": "mlx-community/LFM2-8B-A1B-4bit", "max_tokens": 500,
  "gen_tokens": 430, "runs": 2,
  "fidelity": {"matched": 430, "total": 430, "verdict": "PASS"},
  "baseline": {"prefill_tok_s": [737.5, 736.5], "decode_tok_s": [223.5, 224],
    "median_prefill": 737, "median_decode": 223.75, "peak_mem_gb": 5.3},
  "patched": {"patterns": ["moe_mlp", "swiglu_mlp"], "modules_patched": 24,
    "prefill_tok_s": [745.25, 745.75], "decode_tok_s": [250.5, 250],
    "median_prefill": 745.5, "median_decode": 250.25, "peak_mem_gb": 5.3},
  "summary": {"decode_speedup": 1.118, "prefill_change": 0.0115}}})";

Json reference() {
  return parse_json(kReference, "c.json");
}

std::string error_of(const Json& json) {
  try {
    capsule_from_json(json, "c.json");
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

TEST(Capsule, ReadsTheReferences) {
  const Capsule capsule = capsule_from_json(reference(), "c.json");
  EXPECT_EQ(capsule.meta.schema_version, 0);
  EXPECT_EQ(capsule.meta.os, "26.1");
  EXPECT_EQ(capsule.meta.command, "python -m zmlx.validate A\nB");
  ASSERT_EQ(capsule.models.size(), 1u);
  const CapsuleModel& model = capsule.models[0];
  EXPECT_EQ(model.key, "lfm2_4bit");
  EXPECT_EQ(model.gen_tokens, 430);
  EXPECT_EQ(model.patched.patterns.size(), 2u);
  EXPECT_EQ(model.baseline.decode_tok_s, (std::vector<double>{223.5, 224}));
  EXPECT_TRUE(model.ladder.is_null());
}

TEST(Capsule, ComesBackAsItWasWritten) {
  testing::FakeModel fake;
  const auto result =
      validate(fake.model, testing::small_options(), fake.sides);
  Capsule capsule = to_capsule(result, "zmlx validate models/fake");
  capsule.meta.environment = {{"ZMLX_THREADS", "4"}};
  capsule.meta.note = "two\nlines, \"quotes\"";
  const std::string path =
      (std::filesystem::temp_directory_path() / "zmlx_capsule_test.json")
          .string();
  write_capsule(path, capsule);
  const Capsule back = read_capsule(path);
  std::remove(path.c_str());
  EXPECT_EQ(to_json(back).dump(2), to_json(capsule).dump(2));
  EXPECT_EQ(back.models.at(0).key, "fake");
  EXPECT_EQ(back.meta.environment.at("ZMLX_THREADS"), "4");
}

TEST(Capsule, HoldsTheLadderAndEachPrompt) {
  testing::FakeModel fake(testing::noise(0.02f, 1), mx::bfloat16);
  fake.network->stock_fault = testing::noise(0.1f, 2);
  const auto result =
      validate(fake.model, testing::small_options(), fake.sides);
  const Json json = to_json(to_capsule(result, "c"))["fake"];
  const Json& ladder = json["ladder"];
  EXPECT_EQ(ladder["L0"]["steps"], 36);
  EXPECT_EQ(ladder["L1"]["total"], 36);
  EXPECT_DOUBLE_EQ(ladder["L2"]["mean_kld"], result.closeness.mean_kld());
  EXPECT_DOUBLE_EQ(ladder["L3"]["stock_rms_error"], result.oracle->stock_rms());
  EXPECT_EQ(ladder["L2"]["flips"].size(), result.closeness.flips.size());
  EXPECT_EQ(ladder["repeat"]["equal_steps"], 36);
  EXPECT_EQ(json["prompts"].size(), 3u);
  EXPECT_EQ(json["prompts"][0]["tokens"], (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(json["dtype"], "bfloat16");
  EXPECT_EQ(json["fidelity"]["verdict"], "PASS");
  EXPECT_EQ(json["patched"]["modules_patched"], 3);
  EXPECT_TRUE(json["baseline"].contains("spread_decode"));
}

TEST(Capsule, NamesTheModelByItsFolder) {
  testing::FakeModel fake;
  auto result = validate(fake.model, testing::small_options(), fake.sides);
  const auto names = [&](const std::string& folder) {
    result.model = folder;
    const auto model = to_capsule(result, "").models.at(0);
    return model.key + ' ' + model.model;
  };
  EXPECT_EQ(names("models/demo"), "demo models/demo");
  EXPECT_EQ(names("models/demo/"), "demo models/demo/");
  EXPECT_EQ(names("/x/meta"), "model_meta /x/meta");
  EXPECT_EQ(
      names("/c/hub/models--mlx-community--LFM2-8B/snapshots/0a1b"),
      "LFM2-8B mlx-community/LFM2-8B");
}

TEST(Capsule, TellsWhatIsWrong) {
  const auto broken = [](auto change) {
    Json json = reference();
    change(json);
    return error_of(json);
  };
  EXPECT_EQ(error_of(reference()), "");
  EXPECT_EQ(error_of(Json(3)), "c.json: must hold a JSON object, got 3.");
  EXPECT_EQ(
      error_of(Json::object()),
      "c.json: 'meta' must be an object, got nothing.");
  EXPECT_EQ(
      broken([](Json& json) { json.erase("lfm2_4bit"); }),
      "c.json: a capsule must have a model beside 'meta', got none.");
  EXPECT_EQ(
      broken([](Json& json) { json["lfm2_4bit"] = "x"; }),
      "c.json: 'lfm2_4bit' must be an object, got \"x\".");
  EXPECT_EQ(
      broken([](Json& json) {
        json["lfm2_4bit"]["patched"]["peak_mem_gb"] = nullptr;
      }),
      "c.json: 'lfm2_4bit.patched.peak_mem_gb' must be a number, got null.");
  EXPECT_EQ(
      broken([](Json& json) { json["lfm2_4bit"]["runs"] = -1; }),
      "c.json: 'lfm2_4bit.runs' must be a whole number in 0..2147483647, "
      "got -1.");
  EXPECT_EQ(
      broken([](Json& json) {
        json["lfm2_4bit"]["baseline"]["decode_tok_s"] = {1, "2"};
      }),
      "c.json: 'lfm2_4bit.baseline.decode_tok_s' must hold numbers only, "
      "got \"2\".");
  EXPECT_EQ(
      broken([](Json& json) { json["lfm2_4bit"].erase("fidelity"); }),
      "c.json: 'lfm2_4bit.fidelity' must be an object, got nothing.");
  EXPECT_EQ(
      broken([](Json& json) { json["meta"]["schema_version"] = 2; }),
      "c.json: 'meta.schema_version' must be at most 1, got 2.");
  EXPECT_EQ(
      broken([](Json& json) { json["meta"]["date"] = 5; }),
      "c.json: 'meta.date' must be a string, got 5.");
}

TEST(Capsule, NamesAFileThatIsNotThere) {
  EXPECT_THROW(read_capsule("/no/such/capsule.json"), FileError);
}

TEST(Report, IsTheReferencesTable) {
  const std::string expected =
      "==============================================================\n"
      "Date:    2026-02-08\n"
      "Device:  Apple M4 Max (36 GB)\n"
      "OS:      26.1\n"
      "MLX:     0.30.1\n"
      "ZMLX:    0.7.11\n"
      "Python:  3.14.2\n"
      "Commit:  0123456\n"
      "==============================================================\n"
      "$ python -m zmlx.validate A\n"
      "$ B\n"
      "\n"
      "mlx-community/LFM2-8B-A1B-4bit\n"
      "430 new tokens, 2 runs; patched: moe_mlp, swiglu_mlp (24 modules)\n"
      "Metric            Baseline      Patched             Change\n"
      "----------------------------------------------------------\n"
      "Decode         223.8 tok/s  250.2 tok/s         **+11.8%**\n"
      "Prefill        737.0 tok/s  745.5 tok/s    +1.2% (neutral)\n"
      "Fidelity                        430/430               PASS\n"
      "Peak memory        5.30 GB      5.30 GB\n";
  EXPECT_EQ(report_text(capsule_from_json(reference(), "c.json")), expected);
}

TEST(Report, MarksLossesAndNeutralDecode) {
  Json json = reference();
  json["lfm2_4bit"]["patched"]["median_decode"] = 226;
  json["lfm2_4bit"]["patched"]["median_prefill"] = 600;
  const auto text = report_text(capsule_from_json(json, "c.json"));
  EXPECT_NE(text.find("+1.0% (neutral)"), std::string::npos) << text;
  EXPECT_NE(text.find("**-18.6%**"), std::string::npos) << text;
}

} // namespace
} // namespace zmlx::measure
