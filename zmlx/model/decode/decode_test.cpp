// SPDX-License-Identifier: MIT
// The decode program on the demo model against stock MLX.
#include <cmath>
#include <filesystem>
#include <thread>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "tests/demo_model.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/model/decode/fused_network.h"
#include "zmlx/model/decode/lower.h"
#include "zmlx/model/patch/patch.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::decode {
namespace {

std::unique_ptr<Model> demo_with_steps() {
  auto model = demo();
  const auto done = patch(*model, {.patterns = {"decode_step"}});
  EXPECT_EQ(done.installed.size(), 1u) << done.summary();
  return model;
}

mx::array tokens(std::vector<int> ids, int batch = 1) {
  const int length = static_cast<int>(ids.size()) / batch;
  return mx::array(ids.begin(), {batch, length}, mx::int32);
}

std::vector<float> values(const mx::array& array) {
  auto flat = mx::contiguous(mx::astype(array, mx::float32));
  mx::eval(flat);
  return {flat.data<float>(), flat.data<float>() + flat.size()};
}

// Logits of three steps after a prompt.
std::vector<float> run(
    Network& network,
    const mx::array& prompt,
    const std::vector<mx::array>& steps) {
  auto cache = network.make_cache();
  network.forward(prompt, cache, true);
  std::vector<float> all;
  for (const auto& step : steps) {
    const auto logits = values(network.forward(step, cache, true));
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

double largest_difference(
    const std::vector<float>& a,
    const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    most = std::max<double>(most, std::abs(a[i] - b[i]));
  }
  return most;
}

TEST(DecodeStep, EqualsStockForABatchOfSequences) {
  auto stock = demo(), fused = demo_with_steps();
  const auto prompt = tokens({5, 9, 200, 31, 7, 400, 3, 77, 12}, 3);
  const std::vector<mx::array> steps = {
      tokens({8, 90, 700}, 3), tokens({11, 12, 13}, 3), tokens({4, 4, 4}, 3)};
  const auto expected = run(*stock->network, prompt, steps);
  EXPECT_LT(
      largest_difference(expected, run(*fused->network, prompt, steps)), 1e-4);
}

TEST(DecodeStep, GivesEachSequenceOfABatchWhatItHasAlone) {
  auto model = demo_with_steps();
  const auto both =
      run(*model->network, tokens({5, 9, 200, 31}, 2), {tokens({8, 90}, 2)});
  const auto first = run(*model->network, tokens({5, 9}), {tokens({8})});
  const auto second = run(*model->network, tokens({200, 31}), {tokens({90})});
  const auto vocab = static_cast<ptrdiff_t>(first.size());
  EXPECT_LT(
      largest_difference({both.begin(), both.begin() + vocab}, first), 1e-4);
  EXPECT_LT(
      largest_difference({both.begin() + vocab, both.end()}, second), 1e-4);
}

// The caches of two sequences of different lengths as one, the shorter one's
// rows after `pad` others.
Cache joined(const Cache& longer, const Cache& shorter, int pad) {
  Cache cache;
  for (size_t i = 0; i < longer.size(); ++i) {
    if (const auto* conv = dynamic_cast<const ConvCache*>(longer[i].get())) {
      auto both = std::make_unique<ConvCache>();
      both->inputs = mx::concatenate(
          {*conv->inputs, *static_cast<const ConvCache&>(*shorter[i]).inputs},
          0);
      cache.push_back(std::move(both));
      continue;
    }
    const auto& a = static_cast<const KVCache&>(*longer[i]);
    const auto& b = static_cast<const KVCache&>(*shorter[i]);
    auto both = std::make_unique<KVCache>();
    auto join = [&](const mx::array& x, const mx::array& y) {
      mx::Shape room = x.shape();
      room[2] -= y.shape(2);
      const auto rows = mx::concatenate({y, mx::zeros(room)}, 2);
      return mx::contiguous(mx::concatenate({x, mx::roll(rows, pad, 2)}, 0));
    };
    both->offset = a.offset;
    both->keys = join(*a.keys, *b.keys);
    both->values = join(*a.values, *b.values);
    both->starts = {0, pad};
    cache.push_back(std::move(both));
  }
  return cache;
}

TEST(DecodeStep, TakesSequencesOfDifferentLengths) {
  auto model = demo_with_steps();
  auto& network = *model->network;
  // The longer one is of two chunks of attention, the shorter one of one.
  std::vector<int> ids(300);
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int>(i * 37 % 1000);
  }
  auto longer = network.make_cache(), shorter = network.make_cache();
  network.forward(tokens(ids), longer, true);
  network.forward(tokens({9, 8, 7}), shorter, true);
  auto both = joined(longer, shorter, 297);
  for (int step = 0; step < 2; ++step) {
    const auto together =
        values(network.forward(tokens({31, 64}, 2), both, true));
    auto alone = values(network.forward(tokens({31}), longer, true));
    const auto second = values(network.forward(tokens({64}), shorter, true));
    alone.insert(alone.end(), second.begin(), second.end());
    EXPECT_LT(largest_difference(together, alone), 1e-4);
  }
}

TEST(DecodeStep, RejectsStartsThatDoNotFit) {
  auto model = demo_with_steps();
  auto& network = *model->network;
  auto one = network.make_cache();
  network.forward(tokens({9, 8, 7}), one, true);
  auto both = joined(one, one, 0);
  EXPECT_THROW(
      network.forward(tokens({1, 2, 3, 4}, 2), both, true),
      std::invalid_argument);
  static_cast<KVCache&>(*both[2]).starts = {0, 4};
  EXPECT_THROW(
      network.forward(tokens({1, 2}, 2), both, true), std::invalid_argument);
}

TEST(DecodeStep, StartsFromAnEmptyCache) {
  auto stock = demo(), fused = demo_with_steps();
  auto run_first = [](Network& network) {
    auto cache = network.make_cache();
    return values(network.forward(tokens({17}), cache, true));
  };
  EXPECT_LT(
      largest_difference(
          run_first(*stock->network), run_first(*fused->network)),
      1e-4);
}

TEST(DecodeStep, CrossesTheCachesGrowth) {
  auto stock = demo(), fused = demo_with_steps();
  std::vector<int> prompt(254);
  for (size_t i = 0; i < prompt.size(); ++i) {
    prompt[i] = static_cast<int>(i * 37 % 1000);
  }
  std::vector<mx::array> steps;
  for (int i = 0; i < 5; ++i) {
    steps.push_back(tokens({100 + i}));
  }
  EXPECT_LT(
      largest_difference(
          run(*stock->network, tokens(prompt), steps),
          run(*fused->network, tokens(prompt), steps)),
      1e-4);
}

// The same for one to three threads, and the result.
std::vector<float> run_by_threads(Network& network) {
  const int before = num_threads();
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3, 2}) {
    set_num_threads(threads);
    results.push_back(
        run(network,
            tokens({5, 9, 200, 31}, 2),
            {tokens({8, 90}, 2), tokens({2, 3}, 2)}));
  }
  set_num_threads(before);
  for (const auto& result : results) {
    EXPECT_EQ(result, results[0]);
  }
  return results[0];
}

TEST(DecodeStep, IsBitwiseTheSameForAnyNumberOfThreads) {
  run_by_threads(*demo_with_steps()->network);
}

TEST(DecodeStep, IsBitwiseTheSameForAnyNumberOfThreadsWithWeightsInRows) {
  LoadOptions options;
  options.huge_pages = false;
  const auto model = demo(options);
  EXPECT_EQ(patch(*model).counts().at("decode_step"), 1);
  const auto lowered = lower(*model->network);
  const auto& table = std::get<EmbedStage>(lowered.program->stages[0]).table;
  EXPECT_EQ(std::get<quant::QuantizedArrays>(table).blocks, nullptr);
  const auto rows = run_by_threads(*model->network);
  const auto stock = run_by_threads(*demo()->network);
  EXPECT_LT(largest_difference(stock, rows), 1e-4);
}

TEST(DecodeStep, LeavesArraysThatOthersHoldAsTheyWere) {
  auto model = demo_with_steps();
  auto cache = model->network->make_cache();
  model->network->forward(tokens({5, 9, 200}), cache, true);
  eval(cache);
  std::vector<mx::array> held;
  std::vector<std::vector<float>> before;
  for (const auto& layer : cache) {
    for (auto& state : layer->state()) {
      before.push_back(values(state));
      held.push_back(state);
    }
  }
  mx::eval(model->network->forward(tokens({8}), cache, true));
  eval(cache);
  for (size_t i = 0; i < held.size(); ++i) {
    EXPECT_EQ(values(held[i]), before[i]) << i;
  }
}

TEST(DecodeStep, LetsStockGoOnWithItsCaches) {
  auto stock = demo(), fused = demo_with_steps();
  auto own = stock->network->make_cache(), other = stock->network->make_cache();
  for (const auto& part : {tokens({5, 9, 200}), tokens({8}), tokens({1, 2})}) {
    mx::eval(stock->network->forward(part, own, true));
    mx::eval(fused->network->forward(part, other, true));
  }
  EXPECT_LT(
      largest_difference(
          values(stock->network->forward(tokens({30}), own, true)),
          values(stock->network->forward(tokens({30}), other, true))),
      1e-4);
}

TEST(DecodeStep, RunsSeveralModelsFromSeveralThreads) {
  const auto expected =
      run(*demo_with_steps()->network, tokens({5, 9}), {tokens({8})});
  std::vector<float> results[2];
  // MLX's streams belong to threads: each one loads its own model.
  auto work = [](std::vector<float>& result) {
    auto model = demo_with_steps();
    for (int i = 0; i < 20; ++i) {
      result = run(*model->network, tokens({5, 9}), {tokens({8})});
    }
  };
  std::thread other([&] { work(results[1]); });
  work(results[0]);
  other.join();
  EXPECT_EQ(results[0], expected);
  EXPECT_EQ(results[1], expected);
}

TEST(DecodeStep, RefusesWhatGoesPastTheContextOrHasAnotherBatch) {
  auto model = demo();
  model->info.max_positions = 4;
  patch(*model, {.patterns = {"decode_step"}});
  auto& network = *model->network;
  auto cache = network.make_cache(), other = network.make_cache();
  network.forward(tokens({5, 9}), cache, true);
  network.forward(tokens({5, 9}), other, true);
  const auto refuses = [&](const mx::array& some, const std::string& why) {
    try {
      network.forward(some, cache, true);
      ADD_FAILURE() << "was taken: " << some.shape();
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(error.what(), "[decode_step] " + why);
    }
  };
  const std::string batch = "the batch must be the cache's, 1, got 2.";
  refuses(tokens({1, 2}, 2), batch);
  refuses(tokens({1, 2, 3, 4}, 2), batch);
  refuses(tokens({1, 2, 3}), "the context must be at most 4 tokens, got 5.");
  // After each refusal the caches are what they were.
  for (int step = 0; step < 2; ++step) {
    EXPECT_EQ(
        values(network.forward(tokens({8}), cache, true)),
        values(network.forward(tokens({8}), other, true)));
  }
  refuses(tokens({8}), "the context must be at most 4 tokens, got 5.");
}

TEST(DecodeStep, MakesNumbersOfTokensOutsideTheVocabularyVisible) {
  auto model = demo_with_steps();
  auto cache = model->network->make_cache();
  const auto logits = values(
      model->network->forward(tokens({model->info.vocab_size}), cache, true));
  EXPECT_TRUE(std::isnan(logits[0]));
}

TEST(DecodeStep, IsPutInOnceAndTakenOutAgain) {
  auto model = demo();
  const Network* stock = model->network.get();
  patch(*model);
  EXPECT_EQ(model->network->kind(), "FusedDecodeStep");
  EXPECT_TRUE(patch(*model).installed.empty());
  unpatch(*model);
  EXPECT_EQ(model->network.get(), stock);
}

TEST(DecodeStep, IsLeftOutAtOtherActivationsWithAReason) {
  LoadOptions options;
  options.dtype = mx::bfloat16;
  auto model = demo(options);
  const auto done = patch(*model, {.patterns = {"decode_step"}});
  ASSERT_EQ(done.skipped.size(), 1u);
  EXPECT_NE(done.skipped[0].reason.find("float32"), std::string::npos);
}

/// Which of the demo model's packed weights to store as floats, by a part of
/// their path, and as which.
struct Unpacked {
  const char* part;
  mx::Dtype dtype;

  friend void PrintTo(const Unpacked& unpacked, std::ostream* out) {
    *out << '\'' << unpacked.part << "' as " << unpacked.dtype;
  }
};

class UnpackedDecodeStep : public testing::TestWithParam<Unpacked> {
 protected:
  UnpackedDecodeStep() {
    const auto unpacked = GetParam();
    std::filesystem::copy_file(
        kDemo + std::string("/config.json"), folder_.file("config.json"));
    write_demo(
        folder_.file("model.safetensors"),
        [&](const std::string& path,
            const mx::array& values) -> std::optional<Tensors> {
          if (path.find(unpacked.part) == std::string::npos) {
            return std::nullopt;
          }
          return Tensors{
              {path + ".weight", mx::astype(values, unpacked.dtype)}};
        });
  }
  std::unique_ptr<Model> stock() const {
    LoadOptions options;
    options.skip_tokenizer = true;
    return load(folder_.path(), options);
  }
  std::unique_ptr<Model> fused() const {
    auto model = stock();
    const auto done = patch(*model, {.patterns = {"decode_step"}});
    EXPECT_EQ(done.installed.size(), 1u) << done.summary();
    return model;
  }

 private:
  TemporaryFolder folder_;
};

TEST_P(UnpackedDecodeStep, EqualsStock) {
  const auto expected = stock(), model = fused();
  for (const int batch : {1, 3}) {
    const auto prompt = tokens({5, 9, 200, 31, 7, 400}, batch);
    const std::vector<mx::array> steps = {
        tokens(std::vector<int>(batch, 700), batch),
        tokens(std::vector<int>(batch, 11), batch)};
    EXPECT_LT(
        largest_difference(
            run(*expected->network, prompt, steps),
            run(*model->network, prompt, steps)),
        1e-4)
        << batch;
  }
}

TEST_P(UnpackedDecodeStep, IsBitwiseTheSameForAnyNumberOfThreads) {
  const auto model = fused();
  const int before = num_threads();
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    results.push_back(
        run(*model->network, tokens({5, 9, 200, 31}, 2), {tokens({8, 90}, 2)}));
  }
  set_num_threads(before);
  EXPECT_EQ(results[1], results[0]);
  EXPECT_EQ(results[2], results[0]);
}

TEST_P(UnpackedDecodeStep, HasItsBlocksFusedForPromptsToo) {
  const auto model = stock();
  const auto prompt = tokens({5, 9, 200, 31, 7, 400, 3, 77, 12});
  auto own = model->network->make_cache(), other = model->network->make_cache();
  const auto expected = values(model->network->forward(prompt, own, true));
  const auto done = patch(*model);
  EXPECT_EQ(done.counts().at("moe_mlp"), 5) << done.summary();
  EXPECT_EQ(done.counts().at("swiglu_mlp"), 1) << done.summary();
  EXPECT_TRUE(done.skipped.empty()) << done.summary();
  EXPECT_LT(
      largest_difference(
          expected, values(model->network->forward(prompt, other, true))),
      1e-4);
}

INSTANTIATE_TEST_SUITE_P(
    Weights,
    UnpackedDecodeStep,
    testing::Values(
        Unpacked{"", mx::float32},
        Unpacked{"", mx::bfloat16},
        Unpacked{"feed_forward.gate", mx::float16},
        Unpacked{"_proj", mx::bfloat16},
        Unpacked{"embed_tokens", mx::float16}));

} // namespace
} // namespace zmlx::decode
