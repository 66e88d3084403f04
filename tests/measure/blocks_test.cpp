// SPDX-License-Identifier: MIT
// Weights in blocks against stock MLX: the demo model as it is, whose file is
// not aligned, and in the other formats that blocks take.
#include <fstream>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/base/json.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/measure/validate.h"
#include "zmlx/model/checkpoint/checkpoint.h"
#include "zmlx/model/checkpoint/safetensors.h"
#include "zmlx/model/decode/lower.h"
#include "zmlx/model/model.h"

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
  const auto demo = Checkpoint::open(ZMLX_SOURCE_DIR "/models/demo");
  Json config = demo.config();
  for (const char* block : {"quantization", "quantization_config"}) {
    config[block]["bits"] = format.bits;
    config[block]["group_size"] = format.group_size;
    config[block]["mode"] = format.mode;
  }
  std::ofstream(folder.file("config.json")) << config.dump();
  std::vector<std::pair<std::string, mx::array>> tensors;
  for (const auto& name : demo.names()) {
    const auto path = name.substr(0, name.rfind('.'));
    const auto packing = demo.quantization_of(path);
    if (!packing || path.ends_with(".gate")) {
      tensors.emplace_back(name, demo.tensor(name));
      continue;
    }
    if (!name.ends_with(".weight")) {
      continue;
    }
    const auto values = mx::dequantize(
        demo.tensor(name),
        demo.tensor(path + ".scales"),
        demo.tensor(path + ".biases"),
        packing->group_size,
        packing->bits);
    const auto parts =
        mx::quantize(values, format.group_size, format.bits, format.mode);
    tensors.emplace_back(name, parts[0]);
    tensors.emplace_back(path + ".scales", parts[1]);
    if (parts.size() > 2) {
      tensors.emplace_back(path + ".biases", parts[2]);
    }
  }
  save_safetensors(folder.file("model.safetensors"), tensors);
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
    LoadOptions options;
    options.skip_tokenizer = true;
    if (GetParam().bits == 4 && GetParam().mode == std::string("affine")) {
      model_ = load(ZMLX_SOURCE_DIR "/models/demo", options);
    } else {
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
