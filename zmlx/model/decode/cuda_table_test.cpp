// SPDX-License-Identifier: MIT
// How a program is laid out for the CUDA kernel; no device is needed.
#include <algorithm>
#include <cstring>
#include <map>

#include <gtest/gtest.h>

#include "zmlx/kernels/common/float_fields_modes.h"
#include "zmlx/model/decode/cuda/table.h"
#include "zmlx/model/decode/cuda_table.h"
#include "zmlx/model/decode/test_programs.h"

namespace zmlx::decode {
namespace {

namespace cuda = zmlx_decode;

constexpr int kBlocks = 132;

// Addresses that tell arrays apart.
std::vector<uint64_t> addresses_of(const Program& program) {
  std::vector<uint64_t> addresses;
  for (size_t i = 0; i < arrays_of(program).size(); ++i) {
    addresses.push_back((i + 1) << 32);
  }
  return addresses;
}

struct Laid {
  CudaTable table;
  cuda::Program head;
  std::vector<cuda::Stage> stages;
};

Laid lay(const Program& program) {
  Laid laid{make_cuda_table(program, addresses_of(program), kBlocks), {}, {}};
  const auto& words = laid.table.words;
  std::memcpy(&laid.head, words.data(), sizeof(laid.head));
  laid.stages.resize(static_cast<size_t>(laid.head.num_stages));
  const size_t bytes = laid.stages.size() * sizeof(cuda::Stage);
  EXPECT_EQ(words.size() * 4, sizeof(laid.head) + bytes);
  std::memcpy(laid.stages.data(), words.data() + sizeof(laid.head) / 4, bytes);
  return laid;
}

TEST(CudaTable, TakesTheDemoModel) {
  EXPECT_EQ(why_not_on_cuda(*demo_program(), kBlocks), "");
}

TEST(CudaTable, NamesWhatTheKernelCannotDo) {
  auto program = *demo_program();
  program.vocab = 6145;
  EXPECT_EQ(
      why_not_on_cuda(program, kBlocks),
      "the vocabulary must be a multiple of 16, got 6145");
  program = *demo_program();
  for (auto& stage : program.stages) {
    if (auto* experts = std::get_if<ExpertsStage>(&stage)) {
      std::get<quant::QuantizedArrays>(experts->up).group_size = 32;
    }
  }
  EXPECT_EQ(
      why_not_on_cuda(program, kBlocks),
      "the group size must be 64 or 128, got 32");
  program = *demo_program();
  for (auto& stage : program.stages) {
    auto* experts = std::get_if<ExpertsStage>(&stage);
    if (experts && experts->router) {
      experts->router->spec.groups = 2;
    }
  }
  EXPECT_EQ(
      why_not_on_cuda(program, kBlocks),
      "routers must choose by softmax or sigmoid, without groups");
  program = *demo_program();
  auto& table = std::get<EmbedStage>(program.stages.front()).table;
  std::get<quant::QuantizedArrays>(table).scales =
      mx::zeros({6144, 6}, mx::float32);
  EXPECT_EQ(
      why_not_on_cuda(program, kBlocks),
      "scales must be float16 or bfloat16, got float32");
  table = mx::zeros({6144, 384}, mx::bfloat16);
  EXPECT_EQ(why_not_on_cuda(program, kBlocks), "weights must be quantised");
}

TEST(CudaTable, NamesWhatTheDeviceIsTooSmallFor) {
  auto program = *demo_program(); // 384 wide, with 2 key heads
  EXPECT_EQ(why_not_on_cuda(program, 6), "");
  EXPECT_EQ(
      why_not_on_cuda(program, 5),
      "the device must have at least 6 multiprocessors for this width, got 5");
  EXPECT_EQ(
      why_not_on_cuda(program, 257),
      "the device must have at most 256 multiprocessors, got 257");
  for (auto& stage : program.stages) {
    if (auto* attend = std::get_if<AttendStage>(&stage)) {
      attend->spec.heads = 32;
      attend->spec.kv_heads = 8;
    }
  }
  EXPECT_EQ(
      why_not_on_cuda(program, 7),
      "the device must have a multiprocessor for each of 8 key heads, got 7");
}

TEST(CudaTable, DrawsWithoutFiltersOnly) {
  EXPECT_TRUE(can_draw({}, 100));
  EXPECT_TRUE(can_draw({.temperature = 0.5, .top_p = 1, .top_k = 100}, 100));
  EXPECT_TRUE(can_draw({.top_p = 0.5}, 100)); // the most likely token stays
  EXPECT_FALSE(can_draw({.temperature = 1, .top_p = 0.5}, 100));
  EXPECT_FALSE(can_draw({.temperature = 1, .min_p = 0.5}, 100));
  EXPECT_FALSE(can_draw({.temperature = 1, .top_k = 99}, 100));
}

TEST(CudaTable, TellsWhatAllMatricesHaveInCommon) {
  auto program = *demo_program();
  EXPECT_EQ(lay(program).table.bits, 4);
  EXPECT_EQ(lay(program).table.scheme, cuda::kAffine);
  auto& head = std::get<HeadStage>(program.stages.back()).out.weight;
  head = cpu::random(cpu::kModes[2], {program.vocab, program.dim}, 1);
  EXPECT_EQ(why_not_on_cuda(program, kBlocks), "");
  EXPECT_EQ(lay(program).table.bits, 0);
  EXPECT_EQ(lay(program).table.scheme, -1);
  // A router or an embedding alone, too.
  program = *demo_program();
  std::get<EmbedStage>(program.stages.front()).table =
      cpu::random(cpu::kModes[0], {program.vocab, program.dim}, 1);
  EXPECT_EQ(lay(program).table.bits, 4);
  EXPECT_EQ(lay(program).table.scheme, -1);
}

TEST(CudaTable, ReadsEveryArray) {
  const auto program = demo_program();
  const auto laid = lay(*program);
  std::map<uint64_t, int> seen;
  const auto& words = laid.table.words;
  for (size_t i = 0; i + 1 < words.size(); i += 2) {
    ++seen[uint64_t{words[i + 1]} << 32 | words[i]];
  }
  for (const uint64_t address : addresses_of(*program)) {
    EXPECT_GE(seen[address], 1) << (address >> 32);
  }
}

TEST(CudaTable, GivesEachStageItsOwnOutput) {
  const auto laid = lay(*demo_program());
  std::vector<std::pair<int, int>> ranges;
  for (const auto& s : laid.stages) {
    switch (s.kind) {
      case cuda::kQkv:
        ranges.emplace_back(s.out_at, s.rows_a + 2 * s.rows_b);
        break;
      case cuda::kAttend:
        ranges.emplace_back(s.out_at, s.heads * s.splits * (s.head_dim + 4));
        break;
      case cuda::kExperts:
        ranges.emplace_back(s.out_at, s.units * 8);
        break;
      case cuda::kMix:
        ranges.emplace_back(s.logits_at, s.experts ? 2 * (s.experts + 2) : 0);
        ranges.emplace_back(s.out_at, s.dim);
        ranges.emplace_back(s.sums_at, 2 * s.dim);
        break;
      case cuda::kCombine: // adds to those
      case cuda::kHead:
        break;
      default:
        ranges.emplace_back(s.out_at, s.units * cuda::kRows);
    }
  }
  std::erase_if(ranges, [](const auto& range) { return range.second == 0; });
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 0; i < ranges.size(); ++i) {
    const int end = ranges[i].first + ranges[i].second;
    const int limit =
        i + 1 < ranges.size() ? ranges[i + 1].first : laid.table.exchange_len;
    EXPECT_LE(end, limit) << i;
  }
}

TEST(CudaTable, CutsRowsIntoPiecesThatFitTheirSlots) {
  const auto laid = lay(*demo_program());
  EXPECT_GE(laid.head.slots, 2);
  EXPECT_LE(laid.table.shared_bytes, 227 * 1024);
  int products = 0;
  for (const auto& s : laid.stages) {
    if (s.kind == cuda::kAttend || s.kind == cuda::kMerge) {
      continue;
    }
    ++products;
    EXPECT_EQ(s.piece_cols * s.pieces * s.shares, s.x_len);
    EXPECT_EQ(s.piece_cols * s.inner_pieces, s.a.cols);
    EXPECT_LE(s.piece_cols, cuda::kChunk * cuda::kMaxChunks);
    // Rows 0 and 8 of a tile must start in different halves of 128 bytes.
    EXPECT_EQ(s.words_step % 128, 64);
    EXPECT_LE(s.scales_at + 4 * s.scales_step, laid.head.slot_bytes);
  }
  EXPECT_EQ(products, 6 * 4 + 1);
}

TEST(CudaTable, CutsHiddenVectorsIntoShares) {
  EXPECT_EQ(shares_of_hidden(1792, 4), 4); // 14 chunks of 128: one expert
  EXPECT_EQ(shares_of_hidden(768, 8), 4); // 6 chunks: two experts
  EXPECT_EQ(shares_of_hidden(128, 4), 1);
  EXPECT_EQ(shares_of_hidden(3072, 4), 8); // rows in two pieces
  EXPECT_EQ(shares_of_hidden(7168, 0), 1);
  for (const auto& s : lay(*demo_program()).stages) {
    if (s.kind == cuda::kConv || s.kind == cuda::kQkv ||
        s.kind == cuda::kHead) {
      EXPECT_EQ(s.sum_terms, s.embeds ? 0 : 2);
    }
  }
}

TEST(CudaTable, HandsTheRouterToTheStageBefore) {
  const auto laid = lay(*demo_program());
  int routed = 0;
  for (size_t i = 0; i + 1 < laid.stages.size(); ++i) {
    const auto &mix = laid.stages[i], &experts = laid.stages[i + 1];
    if (experts.kind != cuda::kExperts || experts.experts == 0) {
      continue;
    }
    ++routed;
    EXPECT_EQ(mix.kind, cuda::kMix);
    EXPECT_EQ(mix.router.words, experts.router.words);
    EXPECT_EQ(mix.router_norm, experts.norm);
    EXPECT_EQ(mix.logits_at, experts.logits_at);
    EXPECT_EQ(laid.stages[i + 2].top_k, experts.top_k);
  }
  EXPECT_EQ(routed, 5);
}

} // namespace
} // namespace zmlx::decode
