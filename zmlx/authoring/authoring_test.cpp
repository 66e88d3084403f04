// SPDX-License-Identifier: MIT
// The tools around kernels: differences, the driver and registry, comparing,
// asserting and tuning. Each is shown wrong functions, which it must catch.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "zmlx/authoring/autotune_kernel.h"
#include "zmlx/authoring/bench.h"
#include "zmlx/authoring/difference.h"
#include "zmlx/authoring/registry.h"
#include "zmlx/authoring/testing.h"
#include "zmlx/authoring/verify.h"
#include "zmlx/base/error.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

template <class Work>
std::string error_of(Work&& work) {
  try {
    work();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Arrays doubled(const Arrays& in) {
  return {in[0] + in[0]};
}

Arrays twice(const Arrays& in) {
  return {in[0] * mx::array(2, in[0].dtype())};
}

TEST(Difference, NamesTheWorstValueAndItsPlace) {
  const mx::array want = mx::zeros({2, 3});
  const mx::array got = mx::array({0.f, 0.f, 0.f, 0.f, 2.f, 1.f}, {2, 3});
  EXPECT_EQ(difference(want, want, {}), "");
  EXPECT_EQ(
      difference(got, want, {.absolute = 0.5}),
      "2 of 6 values differ; the worst at (1,1): got 2, want 0 (off by 2, "
      "allowed 0.5).");
  EXPECT_EQ(difference(got, want, {.absolute = 2}), "");
  EXPECT_EQ(
      difference(mx::zeros({3}), want, {}), "shape must be (2,3), got (3).");
}

TEST(Difference, TakesNanForNanOnlyAndInfinitiesBySign) {
  const mx::array special = mx::array({NAN, INFINITY, -INFINITY});
  EXPECT_EQ(difference(special, special, {}), "");
  EXPECT_NE(difference(special, mx::zeros({3}), {1e30, 1e30, 1e30}), "");
  EXPECT_NE(difference(mx::negative(special), special, {1, 1, 1}), "");
  EXPECT_NE(difference(mx::zeros({3}), special, {1, 1, 1}), "");
}

TEST(Difference, ComparesIntegersExactlyAndEmptyArraysByShape) {
  const mx::array a = mx::array({1, 2, 3});
  EXPECT_NE(difference(a, a + mx::array(1), {10, 10, 10}), "");
  EXPECT_EQ(difference(mx::zeros({0, 3}), mx::zeros({0, 3}), {}), "");
  EXPECT_NE(difference(mx::zeros({0, 3}), mx::zeros({3, 0}), {}), "");
}

TEST(Difference, HoldsAValueToTheLargestOnlyWhenAsked) {
  const mx::array want = mx::array({1000.f, 0.f}),
                  got = mx::array({1000.f, 0.01f});
  EXPECT_NE(difference(got, want, {.relative = 1e-3}), "");
  EXPECT_EQ(difference(got, want, {.of_largest = 1e-3}), "");
  const mx::array rest = mx::array({3e-5f}), near = mx::array({3.1e-5f});
  EXPECT_NE(difference(near, rest, {.of_largest = 1e-6}), "");
  EXPECT_EQ(difference(near, rest, {.of_largest = 1e-6, .largest = 2}), "");
}

TEST(Difference, OfBitsSeesSignedZerosAndTypes) {
  EXPECT_EQ(bit_difference(mx::array({NAN}), mx::array({NAN})), "");
  EXPECT_EQ(
      bit_difference(mx::array({1.f, -0.0f}), mx::array({1.f, 0.0f})),
      "1 of 2 values differ in their bits, the first at (1).");
  EXPECT_NE(bit_difference(mx::zeros({2}), mx::zeros({2}, mx::float16)), "");
}

KernelSpec doubling() {
  return {
      .family = "test",
      .name = "doubling",
      .summary = "2 x",
      .call = "doubling(x)",
      .inputs = {{"x", "any shape"}},
      .outputs = {{"out", "x's shape and type"}},
      .run = [](const Arrays& in, const Params&) { return doubled(in); },
      .reference = [](const Arrays& in, const Params&) { return twice(in); },
      .gradient = {0},
      .cases = cases_of({{{3, 5}}, {{0, 2}}, {{1}}}),
      .bench = {{mx::float32, {{64}}}},
  };
}

// The names of the checks that fail on the first case.
std::vector<std::string> failures(const KernelSpec& spec) {
  std::vector<std::string> names;
  for (const auto& check :
       verify(spec, spec.cases[0], mx::Device(mx::Device::cpu))) {
    if (!check.passed) {
      names.push_back(check.name);
    }
  }
  return names;
}

using Names = std::vector<std::string>;

TEST(Verify, PassesAKernelThatIsRightOnEveryCase) {
  const auto spec = doubling();
  for (const auto& one : spec.cases) {
    for (const auto& check : verify(spec, one, mx::Device(mx::Device::cpu))) {
      EXPECT_TRUE(check.passed) << to_text(one) << check.detail;
    }
  }
}

TEST(Verify, CatchesWrongValuesTypesAndThrownErrors) {
  auto spec = doubling();
  spec.gradient = {};
  spec.run = [](const Arrays& in, const Params&) {
    return Arrays{in[0] * mx::array(2.00001f)};
  };
  EXPECT_EQ(
      failures(spec),
      (Names{"values", "strided", "broadcast", "ties", "specials"}));
  spec.run = [](const Arrays& in, const Params&) {
    return Arrays{mx::astype(twice(in)[0], mx::float16)};
  };
  EXPECT_TRUE(contains(
      verify(spec, spec.cases[0], mx::Device(mx::Device::cpu))[0].detail,
      "type must be float32, got float16"));
  spec.run = [](const Arrays&, const Params&) -> Arrays {
    throw std::runtime_error("no device");
  };
  EXPECT_EQ(
      verify(spec, spec.cases[0], mx::Device(mx::Device::cpu))[0].detail,
      "threw: no device");
}

// A sum of 2^12 terms that is next to nothing, off by `error`.
std::string difference_of_a_sum(bool sizes, float error) {
  auto spec = doubling();
  spec.reference = [](const Arrays& in, const Params&) {
    return Arrays{mx::sum(in[0], -1)};
  };
  spec.terms = [](const KernelCase&) { return 4096; };
  if (sizes) {
    spec.term_sizes = [](const Arrays& in, const Params&) {
      return Arrays{mx::sqrt(mx::sum(mx::square(in[0]), -1))};
    };
  }
  const mx::array half = mx::random::normal({1, 2048}, mx::random::key(1));
  const Arrays in = {
      mx::concatenate({half, mx::negative(half), mx::full({1, 1}, 0.001f)}, 1)};
  return values_difference(
      spec, spec.cases[0], in, {mx::full({1}, 0.001f + error)});
}

TEST(Verify, HoldsASumThatCancelsToTheSizeOfItsTerms) {
  EXPECT_NE(difference_of_a_sum(false, 1e-5f), "");
  EXPECT_EQ(difference_of_a_sum(true, 1e-5f), "");
  // But not to more than that: a term too few is still seen.
  EXPECT_NE(difference_of_a_sum(true, 0.01f), "");
}

TEST(Verify, CatchesAGradientThatIsOff) {
  auto spec = doubling();
  spec.run = [](const Arrays& in, const Params&) {
    return Arrays{mx::stop_gradient(in[0]) + in[0]};
  };
  EXPECT_EQ(failures(spec), (Names{"gradients", "ties"}));
}

TEST(Verify, CatchesTransformationsThatAKernelDoesNotBear) {
  auto spec = doubling();
  // Something else under a transformation than by itself.
  spec.run = [](const Arrays& in, const Params&) {
    return Arrays{in[0] * mx::array(in[0].is_tracer() ? 2.5f : 2.0f)};
  };
  const auto found = failures(spec);
  for (const char* name : {"gradients", "vmap", "compile"}) {
    EXPECT_NE(std::find(found.begin(), found.end(), name), found.end()) << name;
  }
}

TEST(Verify, CatchesAKernelThatReadsItsInputAsIfDense) {
  auto spec = doubling();
  spec.gradient = {};
  // Reads the buffer in the order of memory, as raw kernels tend to.
  spec.run = [](const Arrays& in, const Params&) {
    mx::array x = in[0];
    x.eval();
    const float* from = x.data<float>();
    std::vector<float> values(x.size());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = 2 * from[i];
    }
    return Arrays{mx::array(values.begin(), x.shape())};
  };
  // A buffer behind a reversed or broadcast view may end before that.
  spec.run = [dense = spec.run](const Arrays& in, const Params& params) {
    const auto& x = in[0];
    return x.strides() == mx::Strides{1, 3} ? dense(in, params) : twice(in);
  };
  EXPECT_EQ(failures(spec), Names{"strided"});
}

TEST(Verify, CatchesResultsThatChangeFromRunToRun) {
  auto spec = doubling();
  spec.gradient = {};
  spec.run = [](const Arrays& in, const Params&) {
    static float step = 0;
    step += 1e-7f;
    return Arrays{twice(in)[0] * mx::array(1 + step)};
  };
  EXPECT_EQ(failures(spec), (Names{"repeats", "threads"}));
}

TEST(Verify, CatchesNanThatIsSwallowed) {
  auto spec = doubling();
  spec.gradient = {};
  spec.run = [](const Arrays& in, const Params&) {
    return Arrays{mx::nan_to_num(twice(in)[0], 0.0f)};
  };
  EXPECT_EQ(failures(spec), Names{"specials"});
}

TEST(Registry, RefusesANameTwiceAndASpecWithHoles) {
  Registry registry;
  registry.add(doubling());
  EXPECT_TRUE(contains(
      error_of([&] { registry.add(doubling()); }),
      "kernel names must be unique, got 'doubling'"));
  auto spec = doubling();
  spec.name = "other";
  spec.reference = nullptr;
  EXPECT_EQ(
      error_of([&] { registry.add(spec); }),
      "[registry] kernel 'other' must have reference.");
  spec = doubling();
  spec.name = "another";
  spec.bench[0].shapes.push_back({2});
  EXPECT_TRUE(contains(error_of([&] { registry.add(spec); }), "1 shapes"));
}

TEST(Registry, NamesTheNearestKernel) {
  Registry registry;
  registry.add(doubling());
  EXPECT_EQ(registry.find("doubling", "kernels").summary, "2 x");
  EXPECT_EQ(
      error_of([&] { registry.find("dubling", "kernels"); }),
      "[kernels] no kernel 'dubling'. Did you mean 'doubling'? Run 'zmlx "
      "kernels' for the list.");
}

TEST(AssertMatches, PassesEqualFunctionsInEveryTypeWithGradients) {
  testing::assert_matches(
      doubled,
      twice,
      {{3, 5}, {0}, {}},
      {.dtypes = {mx::float32, mx::float16, mx::bfloat16}});
  testing::assert_matches(
      [](const Arrays& in) { return Arrays{in[0] * in[1], in[0]}; },
      [](const Arrays& in) { return Arrays{in[1] * in[0], in[0]}; },
      {{7}},
      {.inputs = 2});
}

TEST(AssertMatches, ReportsValueTypeShapeAndGradient) {
  const auto report = [](const ArrayFunction& function) {
    return error_of(
        [&] { testing::assert_matches(function, twice, {{2, 2}}); });
  };
  EXPECT_TRUE(contains(
      report([](const Arrays& in) {
        return Arrays{twice(in)[0] + mx::array(0.5f)};
      }),
      "[assert_matches] for inputs float32 (2,2): output 0: 4 of 4 values "
      "differ"));
  EXPECT_TRUE(contains(
      report([](const Arrays& in) {
        return Arrays{mx::astype(twice(in)[0], mx::float16)};
      }),
      "output 0: type must be float32, got float16."));
  EXPECT_TRUE(contains(
      report([](const Arrays& in) { return Arrays{mx::sum(in[0])}; }),
      "shape must be (2,2), got ()."));
  EXPECT_TRUE(contains(
      report([](const Arrays& in) {
        return Arrays{in[0] + mx::stop_gradient(in[0])};
      }),
      "gradient in input 0: 4 of 4 values differ"));
  EXPECT_TRUE(contains(
      report([](const Arrays& in) { return Arrays{in[0], in[0]}; }),
      "must give 1 outputs, got 2."));
  EXPECT_THROW(
      testing::assert_matches(twice, twice, {}), std::invalid_argument);
}

TEST(Compare, GivesFirstOverSecondForEveryShapeAndType) {
  const std::vector<bench::Implementation> both = {
      {"slow",
       [](const Arrays& in) {
         std::this_thread::sleep_for(std::chrono::milliseconds(20));
         return twice(in);
       }},
      {"fast", doubled}};
  const auto rows =
      bench::compare(both, {{4}, {2, 3}}, {.warmup = 1, .iterations = 3});
  ASSERT_EQ(rows.size(), 4u);
  for (const auto& row : rows) {
    EXPECT_EQ(row.failure, "");
    EXPECT_EQ(row.microseconds.size(), 2u);
    EXPECT_DOUBLE_EQ(row.speedup, row.microseconds[0] / row.microseconds[1]);
    EXPECT_GE(row.microseconds[0], 20000);
  }
  EXPECT_EQ(rows[1].dtype, mx::float16);
  const std::string text = bench::to_text(both, rows);
  EXPECT_TRUE(contains(text, "slow (us)"));
  EXPECT_TRUE(contains(text, "(2,3)"));
}

TEST(Compare, TimesNothingThatDiffersOrThrows) {
  int calls = 0;
  const auto counted = [&](const Arrays& in) {
    ++calls;
    return twice(in);
  };
  const auto wrong = [](const Arrays& in) { return Arrays{in[0]}; };
  const auto broken = [](const Arrays&) -> Arrays {
    throw std::runtime_error("no kernel");
  };
  const auto rows = bench::compare(
      {{"a", counted}, {"b", wrong}}, {{4}}, {.dtypes = {mx::float32}});
  EXPECT_TRUE(contains(rows[0].failure, "b differs from a: output 0: "));
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(rows[0].microseconds.empty());
  EXPECT_TRUE(std::isnan(rows[0].speedup));
  EXPECT_EQ(
      bench::compare(
          {{"a", twice}, {"b", broken}}, {{4}}, {.dtypes = {mx::float32}})[0]
          .failure,
      "b threw: no kernel");
  EXPECT_THROW(bench::compare({}, {{4}}), std::invalid_argument);
}

// Each test has a cache of its own.
class Autotune : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::temp_directory_path() / concat("zmlx_autotune_test_", ::getpid());
    ::setenv("ZMLX_CACHE_DIR", folder_.c_str(), 1);
  }
  void TearDown() override {
    ::unsetenv("ZMLX_CACHE_DIR");
    fs::permissions(folder_, fs::perms::owner_all, ignored_);
    fs::remove_all(folder_, ignored_);
  }

  TuneResult tune(
      std::vector<TuneConfig> candidates = {{{"ms", 100}}, {{"ms", 0}}}) {
    return autotune(
        "test",
        {mx::ones({4})},
        candidates,
        [this](const Arrays& in, const TuneConfig& config) {
          ++calls_;
          const int64_t ms = config.at("ms");
          if (ms < 0) {
            throw std::runtime_error("too many threads");
          }
          std::this_thread::sleep_for(std::chrono::milliseconds(ms));
          return ms == 13 ? Arrays{in[0]} : twice(in);
        },
        {.warmup = 1, .iterations = 2});
  }

  std::vector<fs::path> files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_ / "autotune")) {
      files.push_back(entry.path());
    }
    return files;
  }

  fs::path folder_;
  std::error_code ignored_;
  int calls_ = 0;
};

TEST_F(Autotune, PicksTheFastestAndRemembersIt) {
  const auto first = tune();
  EXPECT_EQ(first.best, (TuneConfig{{"ms", 0}}));
  EXPECT_FALSE(first.cached);
  EXPECT_EQ(first.cache_problem, "");
  EXPECT_GT(first.timings[0].seconds, first.timings[1].seconds);
  EXPECT_EQ(calls_, 2 * (1 + 1 + 2));
  const auto second = tune();
  EXPECT_TRUE(second.cached);
  EXPECT_EQ(second.best, first.best);
  EXPECT_EQ(second.timings[0].seconds, first.timings[0].seconds);
  EXPECT_EQ(calls_, 8);
  EXPECT_FALSE(tune({{{"ms", 0}}}).cached);
}

TEST_F(Autotune, ReportsCandidatesThatFailOrGiveOtherValues) {
  const auto result = tune({{{"ms", -1}}, {{"ms", 1}}, {{"ms", 13}}});
  EXPECT_EQ(result.best, (TuneConfig{{"ms", 1}}));
  EXPECT_EQ(result.timings[0].failure, "too many threads");
  EXPECT_TRUE(std::isnan(result.timings[0].seconds));
  EXPECT_TRUE(contains(result.timings[2].failure, "4 of 4 values differ"));
  EXPECT_EQ(
      tune({{{"ms", -1}}, {{"ms", 1}}, {{"ms", 13}}}).timings[0].failure,
      "too many threads");
}

TEST_F(Autotune, ThrowsWithEveryReasonWhenNothingWorks) {
  EXPECT_EQ(
      error_of([&] { tune({{{"ms", -1}}, {{"ms", -2}}}); }),
      "[autotune] no candidate of 'test' works; ms=-1: too many threads; "
      "ms=-2: too many threads");
  EXPECT_THROW(tune(std::vector<TuneConfig>{}), std::invalid_argument);
}

TEST_F(Autotune, MeasuresAgainWhenTheFileIsDamagedOrForSomethingElse) {
  tune();
  ASSERT_EQ(files().size(), 1u);
  const fs::path file = files()[0];
  const auto half = fs::file_size(file) / 2;
  fs::resize_file(file, half);
  EXPECT_FALSE(tune().cached);
  EXPECT_TRUE(tune().cached);
  std::ofstream(file) << R"({"key": {}, "best": 0, "timings": []})";
  EXPECT_FALSE(tune().cached);
  std::ofstream(file) << "[]";
  EXPECT_FALSE(tune().cached);
}

TEST_F(Autotune, SaysWhyItCouldNotRemember) {
  std::ofstream(folder_) << "a file where the folder should be";
  const auto result = tune();
  EXPECT_EQ(result.best, (TuneConfig{{"ms", 0}}));
  EXPECT_NE(result.cache_problem, "");
}

TEST_F(Autotune, FindsALaunchOfARawKernel) {
  const Kernel squares(
      {.name = "squares",
       .inputs = {"x"},
       .body = "uint i = thread_position_in_grid.x; out[i] = x[i] * x[i];"});
  auto candidates = launch_candidates({}, 128);
  ASSERT_EQ(candidates.size(), 3u);
  candidates.push_back({.threadgroup = KernelSize{2048, 1, 1}});
  const TuneOptions options = {.warmup = 1, .iterations = 2};
  const Arrays inputs = {mx::arange(1000.0f)};
  const auto tuned = autotune_kernel(squares, inputs, candidates, options);
  EXPECT_FALSE(tuned.result.cached);
  EXPECT_TRUE(contains(
      tuned.result.timings[3].failure, "threadgroup must have at most 1024"));
  EXPECT_EQ(
      difference(squares(inputs, tuned.best)[0], mx::square(inputs[0]), {1e-6}),
      "");
  EXPECT_TRUE(
      autotune_kernel(squares, inputs, candidates, options).result.cached);
  const Kernel other(
      {.name = "squares",
       .inputs = {"x"},
       .body = "uint i = thread_position_in_grid.x; out[i] = x[i] + x[i];"});
  EXPECT_FALSE(
      autotune_kernel(other, inputs, candidates, options).result.cached);
}

TEST_F(Autotune, SurvivesManyThreadsWritingAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([] {
      autotune(
          "shared",
          {mx::ones({2})},
          threadgroup_candidates(64),
          [](const Arrays& in, const TuneConfig&) { return Arrays{in[0]}; },
          {.warmup = 0, .iterations = 1});
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(files().size(), 1u);
}

TEST(TuneConfigs, ArePowersOfTwoUpToTheLimit) {
  EXPECT_EQ(threadgroup_candidates().size(), 6u);
  EXPECT_EQ(threadgroup_candidates(100).size(), 2u);
  EXPECT_EQ(to_text(threadgroup_candidates()[0]), "threadgroup=32");
  EXPECT_EQ(to_text(TuneConfig{}), "default");
}

} // namespace
} // namespace zmlx
