// SPDX-License-Identifier: MIT
// Weights in blocks against stock MLX: the demo model as it is, whose file is
// not aligned, and in the other formats that blocks take.
#include <fstream>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "tests/demo_model.h"
#include "zmlx/base/json.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/measure/validate.h"
#include "zmlx/model/decode/lower.h"

namespace zmlx::measure {
namespace {

struct Format {
  int bits, group_size;
  const char* mode;

  friend void PrintTo(const Format& format, std::ostream* out) {
    *out << format.mode << ' ' << format.bits;
  }
};

// The demo model with every matrix but the routers in another format.
void write_demo_as(const Format& format, const TemporaryFolder& folder) {
  Json config = Checkpoint::open(kDemo).config();
  for (const char* block : {"quantization", "quantization_config"}) {
    config[block]["bits"] = format.bits;
    config[block]["group_size"] = format.group_size;
    config[block]["mode"] = format.mode;
  }
  std::ofstream(folder.file("config.json")) << config.dump();
  write_demo(
      folder.file("model.safetensors"),
      [&](const std::string& path,
          const mx::array& values) -> std::optional<Tensors> {
        if (path.ends_with(".gate")) {
          return std::nullopt;
        }
        const auto parts =
            mx::quantize(values, format.group_size, format.bits, format.mode);
        Tensors tensors;
        for (size_t i = 0; i < parts.size(); ++i) {
          const char* names[] = {".weight", ".scales", ".biases"};
          tensors.emplace_back(path + names[i], parts[i]);
        }
        return tensors;
      });
}

/// Counts a program's matrices.
struct Matrices {
  int in_blocks = 0, of_whole_blocks = 0;

  void one(const decode::Weight& weight) {
    const auto& packed = std::get<quant::QuantizedArrays>(weight);
    in_blocks += packed.blocks != nullptr;
    of_whole_blocks += quant::rows_of(weight) % cpu::kBlockRows == 0;
  }
  void operator()(const decode::EmbedStage& stage) {
    one(stage.table);
  }
  void operator()(const decode::ConvStage& stage) {
    one(stage.in.weight);
  }
  void operator()(const decode::QkvStage& stage) {
    one(stage.q.weight);
    one(stage.k.weight);
    one(stage.v.weight);
  }
  void operator()(const decode::AttendStage&) {}
  void operator()(const decode::MixStage& stage) {
    one(stage.out.weight);
  }
  void operator()(const decode::ExpertsStage& stage) {
    one(stage.gate);
    one(stage.up);
  }
  void operator()(const decode::CombineStage& stage) {
    one(stage.down);
  }
  void operator()(const decode::HeadStage& stage) {
    one(stage.out.weight);
  }
};

class WeightsInBlocks : public testing::TestWithParam<Format> {
 protected:
  void SetUp() override {
    if (!cpu::prefers_blocks()) {
      GTEST_SKIP() << "this machine reads rows";
    }
    if (GetParam().bits == 4 && GetParam().mode == std::string("affine")) {
      model_ = demo();
    } else {
      LoadOptions options;
      options.skip_tokenizer = true;
      write_demo_as(GetParam(), folder_);
      model_ = load(folder_.path(), options);
    }
  }

  TemporaryFolder folder_;
  std::unique_ptr<Model> model_;
};

TEST_P(WeightsInBlocks, AreWhatAPatchedModelReads) {
  EXPECT_EQ(patch(*model_).counts().at("decode_step"), 1);
  const auto lowered = decode::lower(*model_->network);
  ASSERT_NE(lowered.program, nullptr) << lowered.reason;
  Matrices matrices;
  for (const auto& stage : lowered.program->stages) {
    std::visit(matrices, stage);
  }
  EXPECT_GT(matrices.in_blocks, 30);
  EXPECT_EQ(matrices.in_blocks, matrices.of_whole_blocks);
}

TEST_P(WeightsInBlocks, GiveStocksTokensAndTheSameBitsForAnyThreads) {
  ValidateOptions options;
  options.token_prompts = {{1, 52, 700, 31}, {1, 9}, {1, 300, 301, 302, 44}};
  options.max_tokens = 24;
  options.runs = 1;
  options.seconds_per_run = 0.1;
  const auto result = validate(*model_, options);
  EXPECT_EQ(result.patched.counts()["decode_step"], 1);
  EXPECT_TRUE(result.pass()) << testing::PrintToString(result.failures);
  EXPECT_EQ(result.matched(), 3 * 24);
  EXPECT_LT(result.closeness.mean_kld(), 1e-7);
  EXPECT_TRUE(result.repeat.good());
  ASSERT_EQ(result.threads > 1, result.one_thread.has_value());
  EXPECT_TRUE(!result.one_thread || result.one_thread->good());
}

// A stock model between two patched ones must not keep what it has read.
TEST_P(WeightsInBlocks, AreInMemoryOnceAfterStockHasRun) {
  const size_t before = mx::get_active_memory(); // blocks are in none of MLX's
  {
    auto cache = model_->network->make_cache();
    const mx::array prompt({1, 52}, {1, 2});
    mx::eval(model_->network->forward(prompt, cache, true));
  }
  patch(*model_);
  EXPECT_LE(mx::get_active_memory(), before + (size_t{1} << 20));
}

INSTANTIATE_TEST_SUITE_P(
    Formats,
    WeightsInBlocks,
    testing::Values(
        Format{4, 64, "affine"},
        Format{8, 64, "affine"},
        Format{4, 32, "mxfp4"},
        Format{4, 16, "nvfp4"}));

} // namespace
} // namespace zmlx::measure
