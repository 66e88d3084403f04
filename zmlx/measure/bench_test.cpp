// SPDX-License-Identifier: MIT
#include "zmlx/measure/bench.h"

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zmlx/base/error.h"
#include "zmlx/measure/fake_model.h"

namespace zmlx::measure {
namespace {

using testing::FakeModel;

BenchOptions small_options(int n_prompt, int n_gen) {
  BenchOptions options;
  options.n_prompt = {n_prompt};
  options.n_gen = {n_gen};
  options.roofline.buffer_bytes = size_t{4} << 20;
  options.roofline.seconds = 0.01;
  options.roofline.least_seconds = 0;
  return options;
}

// A bench whose figures are known.
BenchResult known_result() {
  FakeModel fake;
  BenchResult result;
  result.machine.cpu = "A \"CPU\"";
  result.machine.backend = "cpu";
  result.machine.mlx_version = "0.0.1";
  result.threads = 2;
  result.model = "models/fake";
  result.info = fake.model.info;
  result.patched = fake.sides.patch(fake.model);
  result.read = {2e8, 3e8, "a loop"};
  result.rows = {
      {{512, 0, 0}, "patched", "T", {2e9, 2e9}, 1'000'000},
      {{0, 128, 16}, "patched", "T", {1e9, 2e9}, 1'000'000},
      {{0, 128, 16}, "stock", "T", {4e9, 4e9}, 2'000'000}};
  return result;
}

// An executable shell script that is removed again.
class Script {
 public:
  explicit Script(const std::string& text) {
    path = (std::filesystem::temp_directory_path() /
            concat("zmlx_fake_llama_", ::getpid()))
               .string();
    write_file(path, "#!/bin/sh\n" + text);
    ::chmod(path.c_str(), 0755);
  }
  ~Script() {
    std::filesystem::remove(path);
  }
  std::string path;
};

TEST(Bench, RunsEveryTestOnEverySide) {
  FakeModel fake;
  BenchOptions options = small_options(4, 3);
  options.n_prompt.push_back(0);
  options.n_depth = {0, 2};
  options.repetitions = 3;
  BenchSides which;
  which.stock = true;
  const auto result = bench(fake.model, options, which, fake.sides);
  ASSERT_EQ(result.rows.size(), 8u);
  EXPECT_EQ(result.rows[0].test.name(), "pp4");
  EXPECT_EQ(result.rows[2].test.name(), "tg3");
  EXPECT_EQ(result.rows[4].test.name(), "pp4 @ d2");
  EXPECT_EQ(result.rows[7].side, "stock");
  for (const auto& row : result.rows) {
    EXPECT_EQ(row.nanoseconds.size(), 3u);
    EXPECT_GT(row.peak_memory_bytes, 0u);
  }
  EXPECT_GT(result.read.bytes_per_second, 0);
  EXPECT_GE(result.read.best_pass, result.read.bytes_per_second);
  EXPECT_FALSE(fake.network->patched);
}

TEST(Bench, ReadsNoMemoryForPrompts) {
  FakeModel fake;
  BenchOptions options = small_options(4, 0);
  options.progress = [](const std::string& what, int, int) {
    EXPECT_NE(what, "reading memory");
  };
  const auto result = bench(fake.model, options, {}, fake.sides);
  EXPECT_EQ(result.read.bytes_per_second, 0);
  EXPECT_EQ(bench_markdown(result).find("read bandwidth"), std::string::npos);
  const Json row = bench_json(result)[0];
  EXPECT_TRUE(row.at("read_bandwidth_gb_s").is_null());
  EXPECT_TRUE(row.at("best_read_pass_gb_s").is_null());
}

TEST(Bench, ThePeakIsWithoutTheMemoryThatIsRead) {
  FakeModel fake;
  BenchOptions options = small_options(0, 2);
  const auto peak = [&](size_t megabytes) {
    options.roofline.buffer_bytes = megabytes << 20;
    const auto result = bench(fake.model, options, {}, fake.sides);
    return static_cast<double>(result.rows[0].peak_memory_bytes);
  };
  EXPECT_NEAR(peak(64), peak(4), 60e6);
}

TEST(Bench, RejectsWrongOptions) {
  FakeModel fake;
  fake.model.info.max_positions = 100;
  const auto rejects = [&](auto change) {
    BenchOptions options = small_options(8, 8);
    change(options);
    EXPECT_THROW(
        bench(fake.model, options, {}, fake.sides), std::invalid_argument);
  };
  rejects([](BenchOptions& options) { options.n_prompt = {-1}; });
  rejects([](BenchOptions& options) { options.repetitions = 0; });
  rejects([](BenchOptions& options) { options.n_gen = {101}; });
  rejects([](BenchOptions& options) { options.n_depth = {93}; });
  rejects([](BenchOptions& options) { options.n_depth = {2147483647}; });
  rejects([](BenchOptions& options) {
    options.n_prompt = {0};
    options.n_gen = {};
  });
}

TEST(Bench, PrintsLlamaBenchsTable) {
  EXPECT_EQ(
      bench_markdown(known_result()),
      "| model                       |     size | params | backend  | threads "
      "|        test |           t/s | GB/s | of read |\n"
      "| --------------------------- | -------: | -----: | -------- | ------: "
      "| ----------: | ------------: | ---: | ------: |\n"
      "| fake affine 4 bit, group 64 | 3.00 GiB | 8.34 B | zmlx CPU |       2 "
      "|       pp512 | 256.00 \xc2\xb1 0.00 |      |         |\n"
      "| fake affine 4 bit, group 64 | 3.00 GiB | 8.34 B | zmlx CPU |       2 "
      "| tg128 @ d16 | 96.00 \xc2\xb1 45.25 |  0.1 |     48% |\n"
      "| fake affine 4 bit, group 64 | 3.00 GiB | 8.34 B | MLX CPU  |       2 "
      "| tg128 @ d16 |  32.00 \xc2\xb1 0.00 |  0.0 |     16% |\n"
      "\n"
      "read bandwidth, measured in turn: median 0.2 GB/s, best pass 0.3; build: "
      "zmlx 0.1.0 (MLX 0.0.1)\n");
}

TEST(Bench, JsonHasLlamaBenchsKeysAndOurs) {
  const Json rows = bench_json(known_result());
  ASSERT_EQ(rows.size(), 3u);
  const Json& row = rows[1];
  EXPECT_EQ(row["n_gen"], 128);
  EXPECT_EQ(row["n_depth"], 16);
  EXPECT_EQ(row["avg_ns"], 1'500'000'000);
  EXPECT_EQ(row["stddev_ns"], 707106781);
  EXPECT_DOUBLE_EQ(row["avg_ts"], 96);
  EXPECT_EQ(row["samples_ns"], Json::array({1'000'000'000, 2'000'000'000}));
  EXPECT_EQ(row["samples_ts"], Json::array({128.0, 64.0}));
  EXPECT_DOUBLE_EQ(row["median_ts"], 96);
  EXPECT_DOUBLE_EQ(row["gb_per_s"], 0.096);
  EXPECT_DOUBLE_EQ(row["percent_of_read_bandwidth"], 48);
  EXPECT_DOUBLE_EQ(row["read_bandwidth_gb_s"], 0.2);
  EXPECT_DOUBLE_EQ(row["best_read_pass_gb_s"], 0.3);
  EXPECT_DOUBLE_EQ(row["peak_mem_gb"], 0.001);
  EXPECT_EQ(row["model_size"], uint64_t{3} << 30);
  EXPECT_EQ(row["modules_patched"], 3);
  EXPECT_EQ(rows[2]["modules_patched"], 0);
  EXPECT_TRUE(rows[0]["gb_per_s"].is_null()); // a prompt shares its reads
  for (const char* key :
       {"build_commit",
        "cpu_info",
        "gpu_info",
        "model_filename",
        "model_type",
        "model_n_params",
        "n_threads",
        "n_prompt",
        "test_time",
        "stddev_ts"}) {
    EXPECT_TRUE(row.contains(key)) << key;
  }
}

TEST(Bench, CsvQuotesItsCells) {
  const std::string csv = bench_csv(known_result());
  EXPECT_EQ(csv.rfind("build_commit,cpu_info,", 0), 0u);
  EXPECT_NE(csv.find("\"A \"\"CPU\"\"\""), csv.npos) << csv;
  EXPECT_NE(csv.find("\"moe_mlp,rmsnorm\""), csv.npos) << csv;
  EXPECT_EQ(csv.find("samples"), csv.npos);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 4);
}

TEST(Bench, RatiosGoPairByPair) {
  EXPECT_EQ(
      bench_ratios(known_result()),
      "tg128 @ d16: patched / stock 3.00x (pairs 4.00 2.00)\n");
}

TEST(LlamaBench, RunsTheProgramWithTheTest) {
  const Script script(R"(
[ "$*" = "-m a b.gguf -p 0 -n 128 -d 16 -t 2 -r 1 -o json" ] || exit 3
echo noise >&2
echo '[{"samples_ns": [123456789], "avg_ts": 1.0}]'
)");
  const LlamaBench llama{script.path, "a b.gguf", 2};
  EXPECT_EQ(llama.run({0, 128, 16}), 123456789);
}

TEST(LlamaBench, IsInterleavedWithTheOthers) {
  const Script script("echo '[{\"samples_ns\": [1000000]}]'\n");
  FakeModel fake;
  BenchOptions options = small_options(2, 0);
  options.repetitions = 2;
  BenchSides which;
  which.llama = LlamaBench{script.path, "m.gguf", 2};
  const auto result = bench(fake.model, options, which, fake.sides);
  ASSERT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.rows[1].side, "llama.cpp");
  EXPECT_EQ(result.rows[1].nanoseconds, (std::vector<double>{1e6, 1e6}));
  const Json json = bench_json(result);
  EXPECT_EQ(json[1]["model_filename"], "m.gguf");
  EXPECT_TRUE(json[1]["peak_mem_gb"].is_null());
  EXPECT_NE(
      bench_ratios(result).find("patched / llama.cpp"), std::string::npos);
}

TEST(LlamaBench, SaysWhatWentWrong) {
  const auto error_of = [](const std::string& program) {
    try {
      LlamaBench{program, "m.gguf", 1}.run({512, 0, 0});
    } catch (const BackendError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(
      error_of("/no/llama-bench")
          .find("/no/llama-bench cannot be run: No such"),
      std::string::npos);
  const auto of_script = [&](const std::string& text) {
    return error_of(Script(text).path);
  };
  EXPECT_NE(of_script("exit 1").find("failed ("), std::string::npos);
  EXPECT_NE(of_script("kill -9 $$").find("failed ("), std::string::npos);
  EXPECT_NE(of_script("echo hello").find("not its JSON"), std::string::npos);
  EXPECT_NE(of_script("echo '[]'").find("one JSON row"), std::string::npos);
  EXPECT_NE(
      of_script("echo '[{\"samples_ns\":[]}]'").find("no sample"),
      std::string::npos);
  EXPECT_NE(
      of_script("echo '[{\"samples_ns\":[0]}]'").find("take time"),
      std::string::npos);
}

TEST(LlamaBench, ProgramIsTheFlagThenTheName) {
  EXPECT_EQ(llama_bench_program("/x"), "/x");
  EXPECT_EQ(llama_bench_program(""), "llama-bench");
}

} // namespace
} // namespace zmlx::measure
