// SPDX-License-Identifier: MIT
#include "zmlx/measure/compare.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "zmlx/base/statistics.h"
#include "zmlx/measure/capsule.h"
#include "zmlx/measure/json_fields.h"

namespace zmlx::measure {
namespace {

using Verdict = Comparison::Verdict;

constexpr double kDecodeFloor = 0.02, kPrefillFloor = 0.03;
constexpr double kMemoryFloor = 0.05, kMemoryFloorGb = 0.05;

// Speeds of one row, whatever file they come from.
struct Series {
  std::string name;
  std::vector<double> tokens_per_second;
  double floor = 0;
  double peak_mem_gb = 0; // 0: not known
};

Comparison compare_speed(const Series& before, const Series& after) {
  Comparison speed;
  speed.name = before.name;
  speed.unit = "tok/s";
  speed.before = median(before.tokens_per_second);
  speed.after = median(after.tokens_per_second);
  speed.noise = std::max(
      {before.floor,
       quartile_spread(before.tokens_per_second),
       quartile_spread(after.tokens_per_second)});
  // Written so that a figure that is no number counts as worse.
  if (!(speed.ratio() >= 1 - speed.noise)) {
    speed.verdict = Verdict::kWorse;
  } else if (speed.ratio() > 1 + speed.noise) {
    speed.verdict = Verdict::kBetter;
  }
  return speed;
}

Comparison compare_memory(const Series& before, const Series& after) {
  Comparison memory;
  memory.name = before.name + " peak memory";
  memory.unit = "GB";
  memory.before = before.peak_mem_gb;
  memory.after = after.peak_mem_gb;
  memory.noise = std::max(kMemoryFloor, kMemoryFloorGb / before.peak_mem_gb);
  if (memory.ratio() > 1 + memory.noise) {
    memory.verdict = Verdict::kWorse;
  } else if (memory.ratio() < 1 - memory.noise) {
    memory.verdict = Verdict::kBetter;
  }
  return memory;
}

void compare_series(
    const std::vector<Series>& before,
    const std::vector<Series>& after,
    CompareResult& result) {
  const auto find = [](const std::vector<Series>& list, const auto& name) {
    return std::find_if(list.begin(), list.end(), [&](const Series& series) {
      return series.name == name;
    });
  };
  for (const auto& series : before) {
    const auto other = find(after, series.name);
    if (other == after.end()) {
      result.unmatched.push_back(series.name + " (only before)");
      continue;
    }
    result.comparisons.push_back(compare_speed(series, *other));
    if (series.peak_mem_gb > 0 && other->peak_mem_gb > 0) {
      result.comparisons.push_back(compare_memory(series, *other));
    }
  }
  for (const auto& series : after) {
    if (find(before, series.name) == before.end()) {
      result.unmatched.push_back(series.name + " (only after)");
    }
  }
}

void warn_if(
    CompareResult& result,
    const char* what,
    const std::string& before,
    const std::string& after) {
  if (before != after) {
    result.warnings.push_back(
        fmt::format(
            "{} differs: '{}' before, '{}' after", what, before, after));
  }
}

std::vector<Series> series_of(const Capsule& capsule) {
  std::vector<Series> list;
  for (const auto& model : capsule.models) {
    const CapsuleSide& side = model.patched;
    list.push_back(
        {model.key + " decode",
         side.decode_tok_s,
         kDecodeFloor,
         side.peak_mem_gb});
    list.push_back(
        {model.key + " prefill", side.prefill_tok_s, kPrefillFloor, 0});
  }
  return list;
}

void compare_fidelity(
    const CapsuleModel& before,
    const CapsuleModel& after,
    CompareResult& result) {
  Comparison fidelity;
  fidelity.name = before.key + " fidelity";
  fidelity.unit = "tokens";
  fidelity.before = before.matched;
  fidelity.after = after.matched;
  if (before.verdict == "PASS" && after.verdict != "PASS") {
    fidelity.verdict = Verdict::kWorse;
  } else if (before.verdict != "PASS" && after.verdict == "PASS") {
    fidelity.verdict = Verdict::kBetter;
  }
  result.comparisons.push_back(fidelity);
}

CompareResult compare_capsules(const Capsule& before, const Capsule& after) {
  CompareResult result;
  warn_if(result, "device", before.meta.device, after.meta.device);
  warn_if(
      result, "MLX version", before.meta.mlx_version, after.meta.mlx_version);
  compare_series(series_of(before), series_of(after), result);
  for (const auto& model : before.models) {
    for (const auto& other : after.models) {
      if (model.key == other.key) {
        compare_fidelity(model, other, result);
        warn_if(result, "model", model.model_hash, other.model_hash);
        warn_if(result, "dtype", model.dtype, other.dtype);
      }
    }
  }
  return result;
}

// A row of llama-bench's or of our bench: the test, and our side.
Series series_of(const Fields& row) {
  Series series;
  const int64_t prompt = row.count("n_prompt"), gen = row.count("n_gen");
  series.name = prompt > 0 ? concat("pp", prompt) : "";
  series.name += gen > 0 ? concat("tg", gen) : "";
  const int64_t depth = row.count_or("n_depth", 0);
  series.name += depth > 0 ? concat(" @ d", depth) : "";
  const int64_t sequences = row.count_or("n_sequences", 1);
  series.name += sequences > 1 ? concat(" x ", sequences) : "";
  const std::string side = row.text_or("side", "");
  series.name += side.empty() ? "" : ' ' + side;
  series.tokens_per_second = row.numbers("samples_ts");
  series.floor = gen > 0 ? kDecodeFloor : kPrefillFloor;
  if (row.has("peak_mem_gb") && !row.json()["peak_mem_gb"].is_null()) {
    series.peak_mem_gb = row.number("peak_mem_gb");
  }
  return series;
}

std::vector<Series> series_of_rows(const Json& json, const std::string& name) {
  std::vector<Series> list;
  for (const auto& row : json) {
    list.push_back(series_of(Fields(row, name, concat('[', list.size(), ']'))));
  }
  return list;
}

CompareResult compare_benches(
    const Json& before,
    const std::string& before_name,
    const Json& after,
    const std::string& after_name) {
  CompareResult result;
  const auto first = series_of_rows(before, before_name);
  const auto second = series_of_rows(after, after_name);
  if (!first.empty() && !second.empty()) {
    const Fields old_row(before[0], before_name, "[0]");
    const Fields new_row(after[0], after_name, "[0]");
    for (const char* key :
         {"cpu_info", "gpu_info", "model_type", "n_threads", "dtype"}) {
      const Json none = "";
      warn_if(
          result,
          key,
          old_row.json().value(key, none).dump(),
          new_row.json().value(key, none).dump());
    }
  }
  compare_series(first, second, result);
  return result;
}

} // namespace

bool CompareResult::good() const {
  return std::none_of(
      comparisons.begin(), comparisons.end(), [](const Comparison& each) {
        return each.verdict == Verdict::kWorse;
      });
}

std::string compare_rules() {
  return fmt::format(
      "worse: median below 1 - max({:.0f}% decode or {:.0f}% prefill, larger "
      "quartile spread); peak memory up by more than {:.0f}% and {:.0f} MB; "
      "PASS became FAIL",
      100 * kDecodeFloor,
      100 * kPrefillFloor,
      100 * kMemoryFloor,
      1000 * kMemoryFloorGb);
}

CompareResult compare_json(
    const Json& before,
    const std::string& before_name,
    const Json& after,
    const std::string& after_name) {
  if (before.is_array() != after.is_array()) {
    bad_file(
        after_name,
        "must be of the kind of ",
        before_name,
        ", which is a ",
        before.is_array() ? "bench" : "capsule",
        '.');
  }
  CompareResult result = before.is_array()
      ? compare_benches(before, before_name, after, after_name)
      : compare_capsules(
            capsule_from_json(before, before_name),
            capsule_from_json(after, after_name));
  if (result.comparisons.empty()) {
    bad_file(after_name, "must have a row that ", before_name, " has too.");
  }
  return result;
}

CompareResult compare_files(
    const std::string& before,
    const std::string& after) {
  constexpr size_t kMostBytes = size_t{64} << 20;
  const Json first = read_json(before, kMostBytes);
  return compare_json(first, before, read_json(after, kMostBytes), after);
}

std::string to_text(const CompareResult& result) {
  size_t width = 6;
  for (const auto& each : result.comparisons) {
    width = std::max(width, each.name.size());
  }
  std::string text = fmt::format(
      "{:<{}}{:>12}{:>12}{:>9}{:>9}  {}\n",
      "Figure",
      width,
      "Before",
      "After",
      "Change",
      "Noise",
      "Verdict");
  for (const auto& each : result.comparisons) {
    const char* verdict = each.verdict == Verdict::kWorse ? "WORSE"
        : each.verdict == Verdict::kBetter                ? "better"
                                                          : "same";
    text += fmt::format(
        "{:<{}}{:>12.4g}{:>12.4g}{:>+8.1f}%{:>8.1f}%  {}\n",
        each.name,
        width,
        each.before,
        each.after,
        100 * (each.ratio() - 1),
        100 * each.noise,
        verdict);
  }
  for (const auto& name : result.unmatched) {
    text += fmt::format("not compared: {}\n", name);
  }
  for (const auto& warning : result.warnings) {
    text += fmt::format("warning: {}\n", warning);
  }
  return text +
      fmt::format(
             "{} ({})\n",
             result.good() ? "No regression" : "REGRESSION",
             compare_rules());
}

} // namespace zmlx::measure
