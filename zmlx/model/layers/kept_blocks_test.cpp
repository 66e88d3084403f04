// SPDX-License-Identifier: MIT
// Blocks of weights in a file, against the file's own rows.
#include "zmlx/model/layers/kept_blocks.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/model/checkpoint/checkpoint.h"
#include "zmlx/model/checkpoint/mapped_array.h"
#include "zmlx/model/checkpoint/safetensors.h"

namespace zmlx {
namespace {

constexpr int kRows = 4096, kCols = 2048; // 4.5 MB at 4 bits

// Bytes of files' pages that are resident in this process; 0: nothing tells.
size_t resident_of_files() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssFile:", 0) == 0) {
      return std::stoull(line.substr(8)) * 1024;
    }
  }
  return 0;
}

class KeptBlocksOfAFile : public testing::Test {
 protected:
  void SetUp() override {
    if (!buffer_header_bytes()) {
      GTEST_SKIP() << "this MLX copies mapped arrays";
    }
    write_file(
        folder_.file("config.json"),
        R"({"quantization":{"bits":4,"group_size":64}})");
    auto parts = mx::quantize(
        mx::random::normal({kRows, kCols}, mx::random::key(1)), 64, 4);
    save_safetensors(
        folder_.file("model.safetensors"),
        {{"w.weight", parts[0]},
         {"w.scales", mx::astype(parts[1], mx::bfloat16)},
         {"w.biases", mx::astype(parts[2], mx::bfloat16)}});
    checkpoint_ =
        std::make_shared<Checkpoint>(Checkpoint::open(folder_.path()));
  }

  quant::QuantizedArrays arrays() const {
    return {
        checkpoint_->tensor("w.weight"),
        checkpoint_->tensor("w.scales"),
        checkpoint_->tensor("w.biases"),
        4,
        64};
  }
  KeptBlocks kept() const {
    return KeptBlocks([this](const mx::array& array) {
      return checkpoint_->place_of(array.data<char>(), array.nbytes());
    });
  }
  std::vector<float> row_of(const cpu::PackedMatrix& w, int64_t row) const {
    std::vector<float> values(kCols);
    cpu::dequantize_row(w, row, values.data());
    return values;
  }

  TemporaryFolder folder_;
  std::shared_ptr<Checkpoint> checkpoint_;
};

TEST_F(KeptBlocksOfAFile, HoldItsRows) {
  const auto rows = arrays();
  const auto blocks = kept().get(rows);
  ASSERT_NE(blocks, nullptr);
  for (int64_t row = 0; row < kRows; row += 37) {
    EXPECT_EQ(
        row_of(blocks->matrix(), row), row_of(quant::view_of_rows(rows), row));
  }
}

TEST_F(KeptBlocksOfAFile, AreMadeOnceForAllWhoHoldThem) {
  auto kept_blocks = kept();
  auto first = kept_blocks.get(arrays());
  const std::weak_ptr<const cpu::RowBlocks> watched = first;
  EXPECT_EQ(kept_blocks.get(arrays()), first);
  first.reset();
  EXPECT_TRUE(watched.expired());
  EXPECT_NE(kept_blocks.get(arrays()), nullptr);
}

TEST_F(KeptBlocksOfAFile, LeaveNoPageOfItResident) {
  const auto rows = arrays();
  const size_t before = resident_of_files();
  if (before == 0) {
    GTEST_SKIP() << "the system does not tell";
  }
  auto kept_blocks = kept();
  const size_t some = rows.words.nbytes() / 2;
  const auto blocks = kept_blocks.get(rows);
  EXPECT_LT(resident_of_files(), before + some);
  // A stock module reads them all.
  mx::eval(mx::sum(rows.words));
  EXPECT_GT(resident_of_files(), before + some);
  kept_blocks.let_go({rows.words, rows.scales, rows.biases});
  EXPECT_LT(resident_of_files(), before + some);
}

TEST_F(KeptBlocksOfAFile, PagesStayWhileThereAreNoBlocks) {
  const auto rows = arrays();
  const size_t before = resident_of_files();
  if (before == 0) {
    GTEST_SKIP() << "the system does not tell";
  }
  mx::eval(mx::sum(rows.words));
  kept().let_go({rows.words, rows.scales, rows.biases});
  EXPECT_GT(resident_of_files(), before + rows.words.nbytes() / 2);
}

TEST_F(KeptBlocksOfAFile, AreNotMadeOfArraysInMemory) {
  auto rows = arrays();
  rows.scales =
      mx::array(rows.scales.data<mx::bfloat16_t>(), rows.scales.shape());
  EXPECT_EQ(kept().get(rows), nullptr);
  rows = arrays();
  rows.biases = mx::negative(rows.biases); // not evaluated
  EXPECT_EQ(kept().get(rows), nullptr);
}

TEST_F(KeptBlocksOfAFile, AreNotMadeOfWhatFitsNoBlock) {
  auto rows = arrays();
  rows.bits = 2; // twice the columns
  rows.group_size = 128;
  EXPECT_EQ(kept().get(rows), nullptr);
}

TEST_F(KeptBlocksOfAFile, SayWhenTheFileHasBecomeShorter) {
  const auto rows = arrays();
  const auto file = folder_.file("model.safetensors");
  std::filesystem::resize_file(
      file, std::filesystem::file_size(file) - rows.words.nbytes() / 2);
  try {
    kept().get(rows);
    FAIL() << "was read";
  } catch (const FileError& error) {
    EXPECT_NE(std::string(error.what()).find(file), std::string::npos);
    EXPECT_NE(
        std::string(error.what()).find("cannot be read"), std::string::npos);
  }
}

} // namespace
} // namespace zmlx
