// SPDX-License-Identifier: MIT
// Blocks of weights in a file, against the file's own rows.
#include "zmlx/model/layers/kept_blocks.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
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

// Moves all tensors of a file by `bytes`, as a longer header does.
void shift_tensors(const std::string& path, size_t bytes) {
  std::string text = read_file(path);
  uint64_t length;
  std::memcpy(&length, text.data(), 8);
  text.insert(8 + length, bytes, ' ');
  length += bytes;
  std::memcpy(text.data(), &length, 8);
  write_file(path, text);
}

/// Whose tensors start so many bytes after a multiple of 64.
class KeptBlocksOfAFile : public testing::TestWithParam<size_t> {
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
    shift_tensors(folder_.file("model.safetensors"), GetParam());
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
  KeptBlocks kept(const quant::QuantizedArrays& rows) const {
    return {rows, [this](const mx::array& array) {
              return checkpoint_->place_of(array);
            }};
  }
  KeptBlocks kept() const {
    return kept(arrays());
  }
  std::vector<float> row_of(const cpu::PackedMatrix& w, int64_t row) const {
    std::vector<float> values(kCols);
    cpu::dequantize_row(w, row, values.data());
    return values;
  }

  TemporaryFolder folder_;
  std::shared_ptr<Checkpoint> checkpoint_;
};

TEST_P(KeptBlocksOfAFile, HoldItsRows) {
  const auto blocks = kept().get();
  ASSERT_NE(blocks, nullptr);
  auto rows = arrays();
  mx::eval(rows.words, rows.scales, rows.biases);
  for (int64_t row = 0; row < kRows; row += 37) {
    EXPECT_EQ(
        row_of(blocks->matrix(), row), row_of(quant::view_of_rows(rows), row));
  }
}

TEST_P(KeptBlocksOfAFile, AreMadeOnceForAllWhoHoldThem) {
  auto kept_blocks = kept();
  EXPECT_EQ(kept_blocks.held(), nullptr);
  auto first = kept_blocks.get();
  const std::weak_ptr<const cpu::RowBlocks> watched = first;
  EXPECT_EQ(kept_blocks.get(), first);
  EXPECT_EQ(kept_blocks.held(), first);
  first.reset();
  EXPECT_TRUE(watched.expired());
  EXPECT_NE(kept_blocks.get(), nullptr);
}

TEST_P(KeptBlocksOfAFile, LeaveNothingElseInMemory) {
  const auto all = [] {
    return static_cast<int64_t>(resident_of_files() + mx::get_active_memory());
  };
  if (resident_of_files() == 0) {
    GTEST_SKIP() << "the system does not tell";
  }
  const int64_t before = all();
  const auto resident = [&] { return all() - before; };
  auto kept_blocks = kept();
  const auto some = static_cast<int64_t>(kept_blocks.rows().words.nbytes() / 2);
  const auto blocks = kept_blocks.get();
  EXPECT_LT(resident(), some);
  {
    // A stock module reads them all.
    const auto rows = kept_blocks.rows();
    mx::eval(mx::sum(rows.words));
    EXPECT_GT(resident(), some);
  }
  kept_blocks.let_go();
  EXPECT_LT(resident(), some);
}

TEST_P(KeptBlocksOfAFile, AreNotMadeOfArraysInMemory) {
  auto rows = arrays();
  rows.scales = mx::contiguous(mx::negative(rows.scales));
  EXPECT_EQ(kept(rows).get(), nullptr); // not evaluated
  mx::eval(rows.scales);
  EXPECT_EQ(kept(rows).get(), nullptr);
}

TEST_P(KeptBlocksOfAFile, AreNotMadeOfWhatFitsNoBlock) {
  auto rows = arrays();
  rows.bits = 2; // twice the columns
  rows.group_size = 128;
  EXPECT_EQ(kept(rows).get(), nullptr);
}

TEST_P(KeptBlocksOfAFile, SayWhenTheFileHasBecomeShorter) {
  auto kept_blocks = kept();
  const auto file = folder_.file("model.safetensors");
  std::filesystem::resize_file(
      file,
      std::filesystem::file_size(file) - kept_blocks.rows().words.nbytes() / 2);
  try {
    kept_blocks.get();
    FAIL() << "was read";
  } catch (const FileError& error) {
    EXPECT_NE(std::string(error.what()).find(file), std::string::npos);
    EXPECT_NE(
        std::string(error.what()).find("cannot be read"), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(Shifts, KeptBlocksOfAFile, testing::Values(0, 17));

} // namespace
} // namespace zmlx
