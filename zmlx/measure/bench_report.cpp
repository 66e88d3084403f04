// SPDX-License-Identifier: MIT
// The forms in which a bench is given out.
#include "zmlx/measure/bench.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include <fmt/format.h>

#include "zmlx/base/error.h"
#include "zmlx/base/statistics.h"
#include "zmlx/base/text.h"
#include "zmlx/version.h"

namespace zmlx::measure {
namespace {

constexpr int kSchema = 1;
constexpr int kPrefillStep = 512; // tokens a step, as prefill() has it

// UTF-8 of the plus-minus sign, which llama-bench prints.
constexpr const char* kPlusMinus = "\xc2\xb1";

std::string model_type(const BenchResult& result) {
  return concat(result.info.family, ' ', result.info.quantization);
}

// "zmlx CPU", "MLX CUDA", "llama.cpp": who runs it, and on what.
std::string backend_name(const BenchResult& result, const BenchRow& row) {
  if (row.side == "llama.cpp") {
    return row.side;
  }
  const std::string& backend = result.machine.backend;
  const char* device = backend == "metal" ? "Metal"
      : backend == "cuda"                 ? "CUDA"
                                          : "CPU";
  return concat(row.side == "stock" ? "MLX " : "zmlx ", device);
}

double percent_of_roof(const BenchResult& result, const BenchRow& row) {
  return result.read.bytes_per_second > 0
      ? 100 * result.bytes_per_second(row) / result.read.bytes_per_second
      : 0;
}

std::vector<std::string> cells(const BenchResult& result, const BenchRow& row) {
  const auto rates = row.tokens_per_second();
  const double gib = static_cast<double>(result.info.weight_bytes) /
      static_cast<double>(uint64_t{1} << 30);
  const double bytes = result.bytes_per_second(row);
  return {
      row.side == "llama.cpp" ? result.llama_model : model_type(result),
      row.side == "llama.cpp" ? "" : fmt::format("{:.2f} GiB", gib),
      row.side == "llama.cpp"
          ? ""
          : fmt::format(
                "{:.2f} B",
                static_cast<double>(result.info.num_parameters) / 1e9),
      backend_name(result, row),
      concat(result.threads),
      row.test.name(),
      fmt::format(
          "{:.2f} {} {:.2f}",
          mean(rates),
          kPlusMinus,
          standard_deviation(rates)),
      bytes > 0 ? fmt::format("{:.1f}", bytes / 1e9) : "",
      bytes > 0 && result.read.bytes_per_second > 0
          ? fmt::format("{:.0f}%", percent_of_roof(result, row))
          : ""};
}

Json rounded(const std::vector<double>& values) {
  Json json = Json::array();
  for (double value : values) {
    json.push_back(std::llround(value));
  }
  return json;
}

// The keys of llama-bench, in its order.
Json llama_keys(const BenchResult& result, const BenchRow& row) {
  const bool llama = row.side == "llama.cpp";
  const auto rates = row.tokens_per_second();
  return {
      {"build_commit", llama ? "llama.cpp" : "zmlx " ZMLX_VERSION},
      {"cpu_info", result.machine.cpu},
      {"gpu_info", result.machine.gpu},
      {"backends", backend_name(result, row)},
      {"model_filename", llama ? result.llama_model : result.model},
      {"model_type", model_type(result)},
      {"model_size", result.info.weight_bytes},
      {"model_n_params", result.info.num_parameters},
      {"n_batch", kPrefillStep},
      {"n_ubatch", kPrefillStep},
      {"n_threads", result.threads},
      {"n_prompt", row.test.n_prompt},
      {"n_gen", row.test.n_gen},
      {"n_depth", row.test.n_depth},
      {"n_sequences", row.test.batch},
      {"test_time", row.started},
      {"avg_ns", std::llround(mean(row.nanoseconds))},
      {"stddev_ns", std::llround(standard_deviation(row.nanoseconds))},
      {"avg_ts", mean(rates)},
      {"stddev_ts", standard_deviation(rates)},
      {"samples_ns", rounded(row.nanoseconds)},
      {"samples_ts", rates}};
}

/// Modules that were left stock, and why.
std::vector<std::string> skips(const PatchResult& patched) {
  std::vector<std::string> lines;
  for (const auto& module : patched.skipped) {
    lines.push_back(
        concat(module.path, " (", module.pattern, "): ", module.reason));
  }
  return lines;
}

void add_own_keys(const BenchResult& result, const BenchRow& row, Json& json) {
  const auto rates = row.tokens_per_second();
  const bool patched = row.side == "patched";
  json["schema_version"] = kSchema;
  json["side"] = row.side;
  json["patterns"] =
      patched ? pattern_names(result.patched) : std::vector<std::string>();
  json["skipped"] =
      patched ? skips(result.patched) : std::vector<std::string>();
  json["modules_patched"] = patched ? result.patched.installed.size() : 0;
  json["dtype"] = name_of(result.dtype);
  json["mlx_version"] = result.machine.mlx_version;
  json["simd"] = result.machine.simd;
  json["median_ts"] = median(rates);
  json["spread_ts"] = spread(rates);
  const double bytes = result.bytes_per_second(row);
  json["gb_per_s"] = bytes > 0 ? Json(bytes / 1e9) : Json();
  json["percent_of_read_bandwidth"] =
      bytes > 0 && result.read.bytes_per_second > 0
      ? Json(percent_of_roof(result, row))
      : Json();
  const bool read = result.read.bytes_per_second > 0;
  json["read_bandwidth_gb_s"] =
      read ? Json(result.read.gb_per_second()) : Json();
  json["best_read_pass_gb_s"] =
      read ? Json(result.read.best_pass / 1e9) : Json();
  Json stages = Json::array();
  for (const auto& stage : row.stages) {
    stages.push_back(
        {{"name", stage.name},
         {"count", stage.count},
         {"us_per_token",
          stage.seconds * 1e6 /
              static_cast<double>(std::max<int64_t>(1, stage.steps))},
         {"bytes", stage.bytes}});
  }
  json["stages"] = std::move(stages);
  json["peak_mem_gb"] = row.peak_memory_bytes > 0
      ? Json(static_cast<double>(row.peak_memory_bytes) / 1e9)
      : Json();
}

std::string csv_cell(const Json& value) {
  std::string text;
  if (value.is_string()) {
    text = value.get<std::string>();
  } else if (value.is_array()) {
    text = join(value.get<std::vector<std::string>>(), ",");
  } else if (!value.is_null()) {
    text = value.dump();
  }
  std::string quoted = "\"";
  for (char letter : text) {
    quoted += letter == '"' ? "\"\"" : std::string(1, letter);
  }
  return quoted + '"';
}

// The columns of numbers stand to the right, as in llama-bench.
std::string line_of(
    const std::vector<std::string>& words,
    const std::vector<size_t>& widths) {
  std::string line = "|";
  for (size_t i = 0; i < words.size(); ++i) {
    const bool right = i != 0 && i != 3;
    // The sign takes two bytes and one column.
    const size_t hidden = words[i].find(kPlusMinus) != std::string::npos;
    const std::string space(
        widths[i] - std::min(widths[i], words[i].size() - hidden), ' ');
    line += ' ' + (right ? space + words[i] : words[i] + space) + " |";
  }
  return line + '\n';
}

} // namespace

double BenchResult::bytes_per_second(const BenchRow& row) const {
  if (row.test.n_gen == 0 || row.side == "llama.cpp") {
    return 0;
  }
  const double steps = median(row.tokens_per_second()) / row.test.batch;
  if (row.test.batch == 1) {
    return static_cast<double>(info.active_bytes + row.cache_bytes) * steps;
  }
  // Sequences of a batch share some of the experts: only the stages know.
  uint64_t bytes = 0;
  for (const auto& stage : row.stages) {
    bytes += stage.bytes;
  }
  return static_cast<double>(bytes) * steps;
}

std::string bench_markdown(const BenchResult& result) {
  std::vector<std::vector<std::string>> table = {
      {"model",
       "size",
       "params",
       "backend",
       "threads",
       "test",
       "t/s",
       "GB/s",
       "of read"}};
  for (const auto& row : result.rows) {
    table.push_back(cells(result, row));
  }
  std::vector<size_t> widths(table[0].size(), 3);
  for (const auto& words : table) {
    for (size_t i = 0; i < words.size(); ++i) {
      const size_t hidden = words[i].find(kPlusMinus) != std::string::npos;
      widths[i] = std::max(widths[i], words[i].size() - hidden);
    }
  }
  std::string text = line_of(table[0], widths) + "|";
  for (size_t i = 0; i < widths.size(); ++i) {
    const bool right = i != 0 && i != 3;
    text += ' ' + std::string(widths[i] - right, '-') + (right ? ": |" : " |");
  }
  text += '\n';
  for (size_t i = 1; i < table.size(); ++i) {
    text += line_of(table[i], widths);
  }
  text += '\n';
  if (result.read.bytes_per_second > 0) {
    text += fmt::format(
        "read bandwidth, measured in turn: median {:.1f} GB/s, best pass "
        "{:.1f}; ",
        result.read.gb_per_second(),
        result.read.best_pass / 1e9);
  }
  text += fmt::format(
      "build: zmlx " ZMLX_VERSION " (MLX {})\n", result.machine.mlx_version);
  for (const auto& line : skips(result.patched)) {
    text += "left stock: " + line + '\n';
  }
  return text;
}

std::string bench_stages(const BenchResult& result) {
  std::string text;
  for (const auto& row : result.rows) {
    if (row.stages.empty()) {
      continue;
    }
    double total = 0;
    for (const auto& stage : row.stages) {
      total += stage.seconds;
    }
    text += fmt::format(
        "\n{}, one run with the clock read after each stage:\n"
        "| stage   | number | us/token | share |     MB |  GB/s |\n"
        "| ------- | -----: | -------: | ----: | -----: | ----: |\n",
        row.test.name());
    for (const auto& stage : row.stages) {
      const double seconds = stage.seconds /
          static_cast<double>(std::max<int64_t>(1, stage.steps));
      const auto bytes = static_cast<double>(stage.bytes);
      text += fmt::format(
          "| {:<7} | {:>6} | {:>8.1f} | {:>4.0f}% | {:>6.1f} | {:>5.1f} |\n",
          stage.name,
          stage.count,
          seconds * 1e6,
          100 * stage.seconds / total,
          bytes / 1e6,
          bytes / seconds / 1e9);
    }
  }
  return text;
}

Json bench_json(const BenchResult& result) {
  Json json = Json::array();
  for (const auto& row : result.rows) {
    Json object = llama_keys(result, row);
    add_own_keys(result, row, object);
    json.push_back(std::move(object));
  }
  return json;
}

std::string bench_csv(const BenchResult& result) {
  std::string text;
  for (Json row : bench_json(result)) {
    row.erase("samples_ns");
    row.erase("samples_ts");
    std::vector<std::string> names, values;
    for (const auto& [name, value] : row.items()) {
      names.push_back(name);
      values.push_back(csv_cell(value));
    }
    if (text.empty()) {
      text = join(names, ",") + '\n';
    }
    text += join(values, ",") + '\n';
  }
  return text;
}

std::string bench_ratios(const BenchResult& result) {
  std::string text;
  for (const auto& row : result.rows) {
    const BenchRow* patched = result.find(row.test, "patched");
    if (row.side == "patched" || patched == nullptr) {
      continue;
    }
    std::vector<double> ratios;
    std::string each;
    for (size_t i = 0; i < row.nanoseconds.size(); ++i) {
      ratios.push_back(row.nanoseconds[i] / patched->nanoseconds[i]);
      each += fmt::format(" {:.2f}", ratios.back());
    }
    text += fmt::format(
        "{}: patched / {} {:.2f}x (pairs{})\n",
        row.test.name(),
        row.side,
        median(ratios),
        each);
  }
  return text;
}

} // namespace zmlx::measure
