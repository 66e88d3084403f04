// SPDX-License-Identifier: MIT
#include "zmlx/measure/kernel_bench.h"

#include <algorithm>

#include <fmt/format.h>

#include "zmlx/authoring/bench.h"
#include "zmlx/authoring/verify.h"
#include "zmlx/base/clock.h"
#include "zmlx/base/error.h"
#include "zmlx/base/statistics.h"
#include "zmlx/measure/roofline.h"
#include "zmlx/runtime/device_name.h"
#include "zmlx/runtime/thread_team.h"
#include "zmlx/version.h"

namespace zmlx::measure {
namespace {

constexpr int kSchema = 1;
constexpr int kWarmup = 3;
constexpr uint64_t kSeed = 42;

[[noreturn]] void
wrong(const KernelSpec& spec, const KernelCase& one, const std::string& why) {
  throw BackendError(concat(
      "[bench] ",
      spec.name,
      " is not timed, since it is wrong on ",
      to_text(one),
      ": ",
      why));
}

Arrays evaluated(Arrays arrays) {
  mx::eval(arrays);
  return arrays;
}

// Against the reference in float64.
void check_small_cases(const KernelSpec& spec) {
  for (const auto& one : spec.cases) {
    const Arrays inputs = evaluated(make_inputs(spec, one, kSeed));
    const std::string why = values_difference(
        spec, one, inputs, evaluated(spec.run(inputs, one.params)));
    if (!why.empty()) {
      wrong(spec, one, why);
    }
  }
}

KernelBenchRow
bench_case(const KernelSpec& spec, const KernelCase& one, int repetitions) {
  const Arrays inputs = evaluated(make_inputs(spec, one, kSeed));
  const Arrays outputs = evaluated(spec.run(inputs, one.params));
  // float64 would take minutes and gigabytes at these sizes.
  const std::string why =
      values_difference(spec, one, inputs, outputs, mx::float32);
  if (!why.empty()) {
    wrong(spec, one, why);
  }
  KernelBenchRow row;
  row.kernel = spec.name;
  row.what = to_text(one);
  row.traffic = traffic_of(spec, inputs, outputs);
  auto samples = bench::time_interleaved(
      {[&] { return spec.run(inputs, one.params); },
       [&] { return spec.reference(inputs, one.params); }},
      kWarmup,
      repetitions);
  row.seconds = std::move(samples[0]);
  row.composed_seconds = std::move(samples[1]);
  return row;
}

double percent_of_read(const KernelBench& bench, const KernelBenchRow& row) {
  return bench.read_bandwidth > 0
      ? 100 * row.bytes_per_second() / bench.read_bandwidth
      : 0;
}

std::string table_of(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows[0].size(), 3);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t i = 0; i < widths.size(); ++i) {
      text += i < 2 ? fmt::format("| {:<{}} ", rows[r][i], widths[i])
                    : fmt::format("| {:>{}} ", rows[r][i], widths[i]);
    }
    text += "|\n";
    for (size_t i = 0; r == 0 && i < widths.size(); ++i) {
      text += "| " + std::string(widths[i] - (i >= 2), '-') +
          (i < 2 ? " " : ": ") + (i + 1 == widths.size() ? "|\n" : "");
    }
  }
  return text;
}

} // namespace

double KernelBenchRow::bytes_per_second() const {
  return traffic.bytes / median(seconds);
}

double KernelBenchRow::speedup() const {
  return median(composed_seconds) / median(seconds);
}

KernelBench bench_kernels(
    const std::vector<const KernelSpec*>& specs,
    const KernelBenchOptions& options) {
  if (options.repetitions < 1) {
    invalid(
        "bench",
        "repetitions must be at least 1, got ",
        options.repetitions,
        '.');
  }
  const mx::Device device = std::all_of(
                                specs.begin(),
                                specs.end(),
                                [](const auto* spec) { return spec->gpu; })
      ? mx::default_device()
      : mx::Device(mx::Device::cpu);
  mx::StreamContext context{device};
  KernelBench result;
  result.machine = this_machine();
  result.threads = num_threads();
  result.backend = backend_name(device);
  ReadPasses reads;
  reads.add();
  result.read_bandwidth = reads.best().bytes_per_second;
  int total = 0;
  for (const auto* spec : specs) {
    total += static_cast<int>(spec->bench.size());
  }
  for (const auto* spec : specs) {
    for (const auto& one : spec->bench) {
      if (options.progress) {
        options.progress(
            spec->name, static_cast<int>(result.rows.size()), total);
      }
      if (&one == spec->bench.data()) {
        check_small_cases(*spec);
      }
      result.rows.push_back(bench_case(*spec, one, options.repetitions));
    }
  }
  return result;
}

std::string to_text(const KernelBench& bench) {
  std::vector<std::vector<std::string>> rows = {
      {"kernel",
       "case",
       "zmlx (us)",
       "+-",
       "MLX (us)",
       "+-",
       "speedup",
       "GB/s",
       "of read"}};
  for (const auto& row : bench.rows) {
    rows.push_back(
        {row.kernel,
         row.what,
         fmt::format("{:.1f}", 1e6 * median(row.seconds)),
         fmt::format("{:.0f}%", 100 * quartile_spread(row.seconds)),
         fmt::format("{:.1f}", 1e6 * median(row.composed_seconds)),
         fmt::format("{:.0f}%", 100 * quartile_spread(row.composed_seconds)),
         fmt::format("{:.2f}x", row.speedup()),
         fmt::format("{:.1f}", row.bytes_per_second() / 1e9),
         fmt::format("{:.0f}%", percent_of_read(bench, row))});
  }
  return table_of(rows) +
      fmt::format(
             "\nmedians of {} interleaved runs, +- quartile distance; checked "
             "first\n{}, {} threads; read bandwidth, measured: {:.1f} GB/s; "
             "zmlx " ZMLX_VERSION " (MLX {})\n",
             bench.rows.empty() ? 0 : bench.rows[0].seconds.size(),
             bench.backend == "cpu" ? bench.machine.cpu : bench.machine.gpu,
             bench.threads,
             bench.read_bandwidth / 1e9,
             bench.machine.mlx_version);
}

Json to_json(const KernelBench& bench) {
  Json json = Json::array();
  for (const auto& row : bench.rows) {
    json.push_back(
        {{"schema_version", kSchema},
         {"kernel", row.kernel},
         {"case", row.what},
         {"backend", bench.backend},
         {"cpu_info", bench.machine.cpu},
         {"gpu_info", bench.machine.gpu},
         {"n_threads", bench.threads},
         {"zmlx_version", ZMLX_VERSION},
         {"mlx_version", bench.machine.mlx_version},
         {"test_time", utc_now()},
         {"bytes", row.traffic.bytes},
         {"flops", row.traffic.flops},
         {"median_us", 1e6 * median(row.seconds)},
         {"spread", quartile_spread(row.seconds)},
         {"samples_s", row.seconds},
         {"composed_median_us", 1e6 * median(row.composed_seconds)},
         {"composed_spread", quartile_spread(row.composed_seconds)},
         {"composed_samples_s", row.composed_seconds},
         {"speedup", row.speedup()},
         {"gb_per_s", row.bytes_per_second() / 1e9},
         {"percent_of_read_bandwidth", percent_of_read(bench, row)},
         {"read_bandwidth_gb_s", bench.read_bandwidth / 1e9}});
  }
  return json;
}

} // namespace zmlx::measure
