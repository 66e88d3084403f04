// SPDX-License-Identifier: MIT
// The CUDA kernel's own text, run on the host, against the CPU executor.
#define ZMLX_BITS 0 // matrices of both
#define ZMLX_SCHEME -1 // and of any scheme
// clang-format off: the order of the kernel's text
#include "zmlx/model/decode/cuda/host_machine.h"
#include "zmlx/model/decode/cuda/exchange.cuh"
#include "zmlx/model/decode/cuda/multiply.cuh"
#include "zmlx/model/decode/cuda/small.cuh"
#include "zmlx/model/decode/cuda/produce.cuh"
#include "zmlx/model/decode/cuda/draw.cuh"
#include "zmlx/model/decode/cuda/inputs.cuh"
#include "zmlx/model/decode/cuda/outputs.cuh"
#include "zmlx/model/decode/cuda/stages.cuh"
#include "zmlx/model/decode/cuda/attend.cuh"
#include "zmlx/model/decode/cuda/kernel.cuh"
// clang-format on
#undef threadIdx
#undef blockIdx
#undef gridDim

#include <array>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "zmlx/model/decode/cpu_executor.h"
#include "zmlx/model/decode/cuda_table.h"
#include "zmlx/model/decode/test_programs.h"
#include "zmlx/model/sampler.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ZMLX_NO_FIBERS
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ZMLX_NO_FIBERS
#endif
#endif

namespace zmlx::decode {
namespace {

namespace mx = mlx::core;

constexpr int kCapacity = 256;

// Copies of arrays that end where no memory follows: a read past the end of one
// ends the test, as it ends a step on a device whose next page is not mapped.
class Aligned {
 public:
  std::vector<uint64_t> addresses;

  explicit Aligned(std::vector<mx::array> arrays) {
    constexpr size_t kTo = 16; // what copies into shared memory ask for
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mx::eval(arrays);
    for (const auto& array : arrays) {
      const size_t room = (array.nbytes() + page - 1) / page * page;
      void* at = mmap(
          nullptr,
          room + page,
          PROT_READ | PROT_WRITE,
          MAP_PRIVATE | MAP_ANONYMOUS,
          -1,
          0);
      if (at == MAP_FAILED || mprotect(begin(at) + room, page, PROT_NONE)) {
        throw std::runtime_error("no memory for a guarded array");
      }
      maps_.emplace_back(at, room + page);
      char* to = begin(at) + room - (array.nbytes() + kTo - 1) / kTo * kTo;
      std::memcpy(to, array.data<char>(), array.nbytes());
      addresses.push_back(reinterpret_cast<uint64_t>(to));
    }
  }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  ~Aligned() {
    for (const auto& [at, size] : maps_) {
      munmap(at, size);
    }
  }

 private:
  static char* begin(void* map) {
    return static_cast<char*>(map);
  }

  std::vector<std::pair<void*, size_t>> maps_;
};

// The caches of both sides, with something in them.
struct Caches {
  std::vector<std::vector<float>> arrays;
  std::vector<LayerState> layers;
  std::vector<uint64_t> addresses;

  explicit Caches(const Program& program) {
    arrays.reserve(16);
    for (const auto& stage : program.stages) {
      if (const auto* conv = std::get_if<ConvStage>(&stage)) {
        layers.resize(std::max<size_t>(layers.size(), conv->layer + 1));
        layers[conv->layer].inputs =
            add((conv->taps.shape(0) - 1) * program.dim);
      } else if (const auto* attend = std::get_if<AttendStage>(&stage)) {
        layers.resize(std::max<size_t>(layers.size(), attend->layer + 1));
        const int size =
            attend->spec.kv_heads * kCapacity * attend->spec.head_dim;
        auto& layer = layers[attend->layer];
        layer.keys.floats = add(size);
        layer.values.floats = add(size);
        layer.keys.head_dim = layer.values.head_dim = attend->spec.head_dim;
        layer.capacity = kCapacity;
      }
    }
  }
  float* add(int size) {
    std::vector<float> values(static_cast<size_t>(size));
    for (int i = 0; i < size; ++i) {
      values[i] = std::sin(0.37f * static_cast<float>(i + 1));
    }
    arrays.push_back(std::move(values));
    addresses.push_back(reinterpret_cast<uint64_t>(arrays.back().data()));
    return arrays.back().data();
  }
};

struct Step {
  int position;
  int32_t token;
};

// What a launch leaves.
struct Launched {
  std::vector<float> logits;
  std::vector<int> chosen;
  int next[4] = {2, 0, 0, 0}, failed = 2;
};

// A program on the host's form of the device, with caches that have something
// in them.
class Device {
 public:
  Device(const Program& program, int blocks)
      : vocab_(program.vocab),
        blocks_(blocks),
        arrays_(arrays_of(program)),
        table_(make_cuda_table(program, arrays_.addresses, blocks)),
        workspace_(
            static_cast<size_t>(
                2 * table_.exchange_len + zmlx_decode::kCountsLen)),
        caches(program) {
    std::fill_n(
        workspace_.begin(), 2 * table_.exchange_len, zmlx_decode::kAbsent);
  }

  // draw: as zmlx_decode::Draw has it.
  Launched
  launch(Step at, const std::array<uint32_t, 4>& draw = {}, int drawn = 0) {
    Launched result;
    const int step[] = {0, at.position, kCapacity, drawn};
    result.logits.assign(static_cast<size_t>(vocab_), NAN);
    result.chosen.assign(draw[3], -2);
    zmlx_decode::run_grid(blocks_, [&] {
      zmlx_decode::run(
          table_.words.data(),
          reinterpret_cast<const zmlx_decode::u64*>(caches.addresses.data()),
          &at.token,
          draw.data(),
          step,
          reinterpret_cast<float*>(workspace_.data()),
          result.logits.data(),
          result.chosen.data(),
          result.next,
          &result.failed);
    });
    EXPECT_EQ(result.failed, gave_up_);
    EXPECT_EQ(result.next[0], gave_up_);
    const int count = static_cast<int>(draw[3]);
    EXPECT_EQ(result.next[1], at.position + std::max(count, 1));
    EXPECT_EQ(result.next[2], kCapacity);
    EXPECT_EQ(result.next[3], drawn + count);
    return result;
  }

  // As if a block had given up a wait.
  void give_up() {
    workspace_[2 * table_.exchange_len + zmlx_decode::kGaveUpAt] = 1;
    gave_up_ = true;
  }

 private:
  int vocab_, blocks_;
  bool gave_up_ = false;
  Aligned arrays_;
  CudaTable table_;
  std::vector<uint32_t> workspace_;

 public:
  Caches caches;
};

// Steps of the kernel's program and of the CPU's, which find what the ones
// before left.
void expect_same_logits(
    const Program& program,
    const Program& on_cpu,
    int blocks,
    const std::vector<Step>& steps) {
#ifdef ZMLX_NO_FIBERS
  GTEST_SKIP() << "sanitizers do not follow this test's fibers";
#endif
  ASSERT_EQ(why_not_on_cuda(program, blocks), "");
  Device device(program, blocks);
  Caches theirs(program);
  CpuExecutor executor(std::make_shared<const Program>(on_cpu));
  for (const auto step : steps) {
    const auto logits = device.launch(step).logits;
    std::vector<float> expected(logits.size(), NAN);
    zmlx::decode::Step cpu;
    cpu.position = step.position;
    cpu.tokens = &step.token;
    cpu.layers = theirs.layers;
    cpu.logits = expected.data();
    executor.run(cpu);
    double apart = 0, size = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      apart += std::pow(double(logits[i]) - expected[i], 2);
      size += std::pow(double(expected[i]), 2);
    }
    EXPECT_LT(std::sqrt(apart / size), 2e-6) << step.token;
  }
  const auto& ours = device.caches.arrays;
  for (size_t i = 0; i < ours.size(); ++i) {
    for (size_t j = 0; j < ours[i].size(); ++j) {
      ASSERT_NEAR(ours[i][j], theirs.arrays[i][j], 1e-4) << i << ' ' << j;
    }
  }
}

void expect_same_logits(
    const Program& program,
    int blocks,
    const std::vector<Step>& steps) {
  expect_same_logits(program, program, blocks, steps);
}

// Tokens of launches of 2 and 1 against zmlx::Sampler on the logits of launches
// that are given their tokens.
void expect_tokens_of_sampler(int layers, const SamplerOptions& options) {
#ifdef ZMLX_NO_FIBERS
  GTEST_SKIP() << "sanitizers do not follow this test's fibers";
#endif
  constexpr int kFirst = 7; // draws before
  const auto program = short_program(layers);
  const Sampler sampler(options);
  Step at = {40, 77};
  Device forced(program, 6), free(program, 6);
  std::vector<int> expected, chosen;
  for (int i = 0; i < 3; ++i) {
    auto logits = forced.launch(at).logits;
    const mx::array row(logits.begin(), {program.vocab}, mx::float32);
    const auto token = sampler(row, kFirst + i).item<uint32_t>();
    expected.push_back(static_cast<int>(token));
    at = {at.position + 1, static_cast<int32_t>(token)};
  }
  at = {40, 77};
  for (const int count : {2, 1}) {
    const auto drawn = static_cast<int>(chosen.size());
    const auto part =
        free.launch(at, draw_words(options, count), kFirst + drawn).chosen;
    chosen.insert(chosen.end(), part.begin(), part.end());
    at = {at.position + count, part.back()};
  }
  EXPECT_EQ(chosen, expected);
  EXPECT_EQ(free.caches.arrays, forced.caches.arrays);
}

TEST(CudaKernel, ChoosesTheMostLikelyToken) {
  expect_tokens_of_sampler(3, {});
}

TEST(CudaKernel, DrawsAsTheSamplerDoes) {
  expect_tokens_of_sampler(1, {.temperature = 1.5, .seed = 0x123456789abcdef});
}

// The head's weights in the second half are the first's: each logit is there
// twice.
TEST(CudaKernel, ChoosesTheFirstOfEqualTokens) {
#ifdef ZMLX_NO_FIBERS
  GTEST_SKIP() << "sanitizers do not follow this test's fibers";
#endif
  auto program = short_program(1);
  auto& head = std::get<HeadStage>(program.stages.back());
  auto& w = std::get<quant::QuantizedArrays>(head.out.weight);
  for (auto* part : {&w.words, &w.scales, &w.biases}) {
    const auto half =
        mx::slice(*part, {0, 0}, {program.vocab / 2, part->shape(1)});
    *part = mx::contiguous(mx::concatenate({half, half}));
  }
  Device device(program, 7);
  const auto result = device.launch({3, 5}, draw_words({}, 1));
  const auto best =
      std::max_element(result.logits.begin(), result.logits.end());
  EXPECT_EQ(result.chosen.front(), best - result.logits.begin());
  EXPECT_LT(result.chosen.front(), program.vocab / 2);
}

TEST(CudaKernel, AgreesWithTheCpuAtTheStart) {
  expect_same_logits(short_program(), 6, {{0, 5}, {1, 900}, {2, 77}});
}

TEST(CudaKernel, AgreesOverSplitsOfTheContext) {
  expect_same_logits(short_program(), 8, {{150, 77}});
}

// Words of splits that are not there must not be taken for those of a context
// that is as long as the one before the last.
TEST(CudaKernel, AgreesAfterAShorterContext) {
  expect_same_logits(short_program(), 8, {{150, 77}, {3, 5}, {151, 900}});
}

TEST(CudaKernel, AgreesWithMoreBlocksThanRows) {
  expect_same_logits(short_program(), 25, {{32, 900}});
}

TEST(CudaKernel, AgreesAt8Bits) {
  expect_same_logits(at_8_bits(short_program()), 7, {{3, 5}});
}

// Of small floats, against the values that MLX gives them: all matrices, and
// all but the embedding and the router.
TEST(CudaKernel, AgreesOnSmallFloats) {
  const auto program = short_program();
  for (const auto& mode : cpu::kModes) {
    const bool rows = mode.scheme != cpu::Scheme::NVFP4;
    SCOPED_TRACE(mode.name);
    const auto small = in_mode(program, mode, rows);
    expect_same_logits(small, in_floats(small), 7, {{1, 77}, {40, 900}});
  }
}

TEST(CudaKernel, AgreesOnLongRowsOfSmallFloats) {
  const auto long_rows = with_long_rows(short_program(1));
  for (const auto& mode : cpu::kModes) {
    SCOPED_TRACE(mode.name);
    const auto small = in_mode(long_rows, mode, true);
    expect_same_logits(small, in_floats(small), 6, {{1, 77}});
  }
}

TEST(CudaKernel, AgreesOnRowsLongerThanAPiece) {
  expect_same_logits(with_long_rows(short_program()), 6, {{1, 77}});
}

// Shares of one expert, of two, and of half of one.
TEST(CudaKernel, AgreesOnSharesOfHiddenVectors) {
  for (const int hidden : {1152, 1024, 3072}) {
    SCOPED_TRACE(hidden);
    const auto program = with_hidden(short_program(2), hidden);
    expect_same_logits(program, 11, {{1, 77}, {2, 5}});
  }
}

TEST(CudaKernel, AgreesOnASoftmaxRouter) {
  expect_same_logits(with_softmax_router(short_program()), 6, {{1, 77}});
}

// Blocks and warps that go on in any order give the same bits.
TEST(CudaKernel, DoesNotDependOnTheOrderOfThreads) {
#ifdef ZMLX_NO_FIBERS
  GTEST_SKIP() << "sanitizers do not follow this test's fibers";
#endif
  const auto program = short_program();
  const auto run = [&](uint32_t seed) {
    zmlx_decode::schedule() = seed;
    Device device(program, 6);
    auto chosen = device.launch({63, 77}, draw_words({}, 2)).chosen;
    const auto last = device.launch({65, chosen.back()});
    zmlx_decode::schedule() = 0;
    return std::tuple(chosen, last.logits, device.caches.arrays);
  };
  EXPECT_EQ(run(1), run(0));
}

TEST(CudaKernel, SumsTermsOfBothSignsExactly) {
#ifdef ZMLX_NO_FIBERS
  GTEST_SKIP() << "sanitizers do not follow this test's fibers";
#endif
  using zmlx_decode::add_term;
  const auto sum_of = [](const std::vector<float>& terms) {
    zmlx_decode::u64 sum = ~zmlx_decode::u64{0};
    zmlx_decode::run_grid(1, [&] {
      if (zmlx_decode::now().thread.x == 0) {
        for (const float term : terms) {
          add_term(&sum, term);
        }
      }
    });
    EXPECT_EQ(zmlx_decode::terms_of(sum), static_cast<int>(terms.size()));
    return zmlx_decode::value_of(sum);
  };
  EXPECT_EQ(sum_of({}), 0);
  EXPECT_EQ(sum_of({-0.75f}), -0.75f);
  EXPECT_EQ(sum_of({1024.5f, -2048.25f, 0.125f}), -1023.625f);
  EXPECT_EQ(sum_of(std::vector<float>(128, 32768)), 128 * 32768.0f);
  EXPECT_EQ(sum_of(std::vector<float>(128, -INFINITY)), -128 * 32768.0f);
  EXPECT_NEAR(sum_of(std::vector<float>(128, 1e-7f)), 128e-7, 128 * 2.4e-10);
  EXPECT_TRUE(std::isfinite(sum_of({NAN, 1})));
}

TEST(CudaKernel, SumsSharesAndSpoilsThoseThatAreNoNumbers) {
#ifdef ZMLX_NO_FIBERS
  GTEST_SKIP() << "sanitizers do not follow this test's fibers";
#endif
  const auto sum_of = [](const std::vector<float>& terms) {
    zmlx_decode::u64 sum = ~zmlx_decode::u64{0};
    const int count = static_cast<int>(terms.size());
    EXPECT_EQ(zmlx_decode::shares_of(sum), 0);
    zmlx_decode::run_grid(1, [&] {
      if (zmlx_decode::now().thread.x == 0) {
        for (const float term : terms) {
          zmlx_decode::add_share(&sum, term);
        }
      }
    });
    EXPECT_EQ(zmlx_decode::shares_of(sum), count);
    return zmlx_decode::value_of_shares(sum, count) *
        zmlx_decode::inverse_share_scale(1.5f);
  };
  EXPECT_EQ(sum_of({-0.75f}), -0.75f);
  EXPECT_EQ(sum_of({1024.5f, -2048.25f, 0.125f}), -1023.625f);
  EXPECT_EQ(sum_of({33.000004f}), 33.000004f); // a lower half below 0
  EXPECT_EQ(sum_of(std::vector<float>(61, 524288)), 61 * 524288.0f);
  EXPECT_EQ(sum_of(std::vector<float>(61, -524288)), -61 * 524288.0f);
  EXPECT_TRUE(std::isnan(sum_of({NAN, 1})));
  EXPECT_TRUE(std::isnan(sum_of({-524288, 600000})));
  EXPECT_TRUE(std::isnan(sum_of(std::vector<float>(61, -INFINITY))));
}

TEST(CudaKernel, TellsNoTokensWhereABlockGaveUp) {
#ifdef ZMLX_NO_FIBERS
  GTEST_SKIP() << "sanitizers do not follow this test's fibers";
#endif
  Device device(short_program(1), 6);
  device.give_up();
  const auto chosen = device.launch({3, 5}, draw_words({}, 2)).chosen;
  EXPECT_EQ(chosen, (std::vector<int>{-1, -1}));
}

TEST(CudaKernel, DoesNothingAfterAStepThatGaveUp) {
  const int step[] = {1, 5, kCapacity, 0};
  const uint32_t draw[] = {0, 0, 0, 3};
  int next[] = {0, 0, 0, 0}, failed = 0;
  std::array<int, 4> chosen = {7, 7, 7, 7};
  zmlx_decode::run_grid(2, [&] {
    zmlx_decode::run(
        nullptr,
        nullptr,
        nullptr,
        draw,
        step,
        nullptr,
        nullptr,
        chosen.data(),
        next,
        &failed);
  });
  EXPECT_EQ(failed, 1);
  EXPECT_EQ(next[0], 1);
  EXPECT_EQ(chosen, (std::array<int, 4>{-1, -1, -1, 7}));
}

TEST(CudaKernel, SaysWhenThreadsWaitForever) {
#ifndef ZMLX_NO_FIBERS
  EXPECT_THROW(
      zmlx_decode::run_grid(
          1,
          [] {
            if (zmlx_decode::now().thread.x > 0) {
              zmlx_decode::__syncthreads();
            }
          }),
      std::logic_error);
#endif
}

} // namespace
} // namespace zmlx::decode
