// SPDX-License-Identifier: MIT
// Rows in blocks: where each word goes, and where rows come from.
#include "zmlx/kernels/common/row_blocks.h"

#include <atomic>
#include <cstring>
#include <stdexcept>

#include <gtest/gtest.h>

#include "zmlx/kernels/common/float_fields_modes.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/kernels/common/test_matrices.h"

namespace zmlx::cpu {
namespace {

// The word at a place of a unit of a block, as PackedMatrix tells it.
uint32_t
expected(const PackedMatrix& w, int64_t row, int64_t group, int64_t word) {
  if (word > 0) {
    return w.row_words(row)[group * w.words_per_unit() + word - 1];
  }
  if (w.scheme != Scheme::Affine) {
    uint32_t scales;
    const auto* bytes = static_cast<const char*>(w.row_scales(row));
    std::memcpy(&scales, bytes + 4 * group, 4);
    return scales;
  }
  uint16_t scale, bias;
  std::memcpy(
      &scale, static_cast<const char*>(w.row_scales(row)) + 2 * group, 2);
  std::memcpy(
      &bias, static_cast<const char*>(w.row_biases(row)) + 2 * group, 2);
  return scale + bias * 65536u;
}

void expect_blocks_of(const PackedMatrix& w, const PackedMatrix& blocks) {
  for (int64_t row = 0; row < w.rows; ++row) {
    const uint32_t* block = blocks.block(row);
    for (int64_t g = 0; g < w.units_per_row(); ++g) {
      for (int64_t k = 0; k <= w.words_per_unit(); ++k) {
        ASSERT_EQ(
            block[g * w.block_unit_words() + k * kBlockRows + row % kBlockRows],
            expected(w, row, g, k))
            << row << ' ' << g << ' ' << k;
      }
    }
  }
}

TEST(RowBlocks, HoldEachWordWhereThePackingSays) {
  for (const auto& c : block_cases()) {
    const Weights weights(c);
    const RowBlocks blocks(weights.matrix(), 1);
    expect_blocks_of(weights.matrix(), blocks.matrix());
  }
  for (const auto& mode : {kModes[0], kModes[1]}) {
    const auto w = random(mode, {64, 640}, 3);
    const RowBlocks blocks(quant::view(w), 1);
    EXPECT_EQ(blocks.matrix().nbytes(), quant::view(w).nbytes());
    expect_blocks_of(quant::view(w), blocks.matrix());
  }
}

TEST(RowBlocks, TakeRowsFromWhereverTheyAreRead) {
  // More than one task's bytes; rows are read in parts by several threads.
  const Weights weights(Case{1024, 2048, 8, 64});
  const PackedMatrix w = weights.matrix();
  PackedMatrix shape = w;
  shape.words = nullptr;
  shape.scales = shape.biases = nullptr;
  std::atomic<int64_t> read{0};
  const RowBlocks blocks(
      shape, 1, [&](int64_t first, int64_t count, std::vector<char>& buffer) {
        read += count;
        const auto bytes = static_cast<size_t>(count * w.words_per_row() * 4);
        buffer.resize(bytes);
        std::memcpy(buffer.data(), w.row_words(first), bytes);
        PackedMatrix rows = w.from(first);
        rows.words = reinterpret_cast<const uint32_t*>(buffer.data());
        return rows;
      });
  EXPECT_EQ(read, 1024);
  expect_blocks_of(w, blocks.matrix());
}

TEST(RowBlocks, PassOnWhatReadingThrows) {
  const Weights weights(Case{1024, 2048, 8, 64});
  const auto read = [&](int64_t first, int64_t, std::vector<char>&) {
    if (first > 200) {
      throw std::runtime_error("no more rows");
    }
    return weights.matrix().from(first);
  };
  try {
    const RowBlocks blocks(weights.matrix(), 1, read);
    FAIL() << "was made";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "no more rows");
  }
}

TEST(RowBlocks, HoldStacksOfMatrices) {
  const Weights weights(Case{3 * 32, 128, 8, 64});
  PackedMatrix w = weights.matrix();
  w.rows = 32;
  const RowBlocks blocks(w, 3);
  std::vector<float> before(128), after(128);
  for (int i = 0; i < 3; ++i) {
    dequantize_row(w.at(i), 30, before.data());
    dequantize_row(blocks.matrix().at(i), 30, after.data());
    EXPECT_EQ(before, after);
  }
}

TEST(RowBlocks, AreForWholeBlocksOfNibblesOrBytesWithScalesOfTwoBytes) {
  EXPECT_TRUE(RowBlocks::fit(Weights(Case{32, 64, 4, 32}).matrix()));
  EXPECT_TRUE(
      RowBlocks::fit(Weights(Case{64, 64, 8, 64, mx::float16}).matrix()));
  EXPECT_FALSE(RowBlocks::fit(Weights(Case{33, 64, 4, 32}).matrix()));
  EXPECT_FALSE(RowBlocks::fit(Weights(Case{32, 64, 6, 32}).matrix()));
  EXPECT_FALSE(
      RowBlocks::fit(Weights(Case{32, 64, 4, 32, mx::float32}).matrix()));
  const auto& [mxfp4, nvfp4, mxfp8] = kModes;
  EXPECT_TRUE(RowBlocks::fit(quant::view(random(mxfp4, {32, 128}, 1))));
  EXPECT_FALSE(RowBlocks::fit(quant::view(random(mxfp4, {32, 64}, 1))));
  EXPECT_TRUE(RowBlocks::fit(quant::view(random(nvfp4, {32, 64}, 1))));
  EXPECT_FALSE(RowBlocks::fit(quant::view(random(nvfp4, {32, 32}, 1))));
  EXPECT_FALSE(RowBlocks::fit(quant::view(random(mxfp8, {32, 128}, 1))));
}

} // namespace
} // namespace zmlx::cpu
