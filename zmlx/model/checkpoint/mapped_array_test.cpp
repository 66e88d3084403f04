// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/mapped_array.h"

#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/runtime/lazy_array.h"

namespace zmlx {
namespace {

// A file of 16 float32 values 0..15 after 64 bytes.
class MappedArray : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string bytes(kOffset, '\x7f');
    for (int i = 0; i < 16; ++i) {
      const float value = static_cast<float>(i);
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    write_file(folder_.file("a"), bytes);
    file_ = std::make_shared<const MappedFile>(folder_.file("a"));
  }
  // Whether the array's values stand in the map.
  bool inside(const mx::array& array) const {
    const char* data = array.data<char>();
    return data >= file_->data() && data < file_->data() + file_->size();
  }
  static bool counts_up(const mx::array& array) {
    const auto wanted = mx::reshape(mx::arange(16, mx::float32), array.shape());
    return mx::array_equal(array, wanted).item<bool>();
  }

  static constexpr size_t kOffset = 64;
  TemporaryFolder folder_;
  std::shared_ptr<const MappedFile> file_;
};

bool on_cpu() {
  return !mx::metal::is_available() && !mx::cu::is_available();
}

TEST_F(MappedArray, IsAViewOfTheFileOnCpu) {
  if (!on_cpu()) {
    GTEST_SKIP() << "views need a build without a GPU";
  }
  ASSERT_TRUE(buffer_header_bytes().has_value());
  const size_t before = mx::get_active_memory();
  const auto array = mapped_array(file_, kOffset, {4, 4}, mx::float32);
  EXPECT_EQ(array.data<char>(), file_->data() + kOffset);
  EXPECT_EQ(mx::get_active_memory(), before);
  EXPECT_TRUE(counts_up(array));
}

TEST_F(MappedArray, KeepsTheMapAliveAndLetsItGo) {
  const std::weak_ptr<const MappedFile> watch = file_;
  {
    auto array = mapped_array(file_, kOffset, {16}, mx::float32);
    file_.reset();
    if (on_cpu()) {
      EXPECT_FALSE(watch.expired());
    }
    EXPECT_TRUE(counts_up(array));
  }
  EXPECT_TRUE(watch.expired());
}

TEST_F(MappedArray, IsNeverTheOutputOfAnOperation) {
  // A sole owner's buffer would be reused for the result if MLX owned it.
  auto array = mapped_array(file_, kOffset, {16}, mx::float32);
  array = mx::negative(std::move(array));
  array = mx::exp(std::move(array));
  array.eval();
  EXPECT_FALSE(inside(array));
  EXPECT_TRUE(counts_up(mapped_array(file_, kOffset, {16}, mx::float32)));
  EXPECT_EQ(MappedFile(folder_.file("a")).text(), file_->text());
}

TEST_F(MappedArray, CopiesWhereTheAllocatorsLayoutIsUnknown) {
  for (const ptrdiff_t offset : {1, 7, 12, -8, 72, 4096}) {
    EXPECT_FALSE(usable_header_bytes(offset).has_value()) << offset;
    const auto array = mapped_array(
        file_, kOffset, {16}, mx::float32, usable_header_bytes(offset));
    EXPECT_FALSE(inside(array)) << offset;
    EXPECT_TRUE(counts_up(array)) << offset;
  }
  EXPECT_EQ(usable_header_bytes(0), size_t(0));
  EXPECT_EQ(usable_header_bytes(16), size_t(16));
}

TEST_F(MappedArray, ReadsWhereTheOffsetIsNotTheAllocators) {
  if (!on_cpu()) {
    GTEST_SKIP() << "views need a build without a GPU";
  }
  const size_t wrong = *buffer_header_bytes() + sizeof(size_t);
  const auto array = mapped_array(file_, kOffset, {16}, mx::float32, wrong);
  EXPECT_TRUE(counts_up(array));
  EXPECT_FALSE(inside(array));
}

TEST_F(MappedArray, ReadsWhatIsNotAlignedOrHasNoRoomInFront) {
  if (!on_cpu()) {
    GTEST_SKIP() << "a copy elsewhere";
  }
  mx::array odd = mapped_array(file_, kOffset + 1, {3}, mx::float32);
  const auto place = unread_bytes(odd);
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->offset, kOffset + 1);
  const mx::array other = unevaluated(odd);
  odd.eval();
  EXPECT_FALSE(inside(odd));
  EXPECT_EQ(std::memcmp(odd.data<char>(), file_->data() + kOffset + 1, 12), 0);
  EXPECT_FALSE(unread_bytes(odd).has_value());
  EXPECT_TRUE(unread_bytes(other).has_value());
  mx::array first = mapped_array(file_, 0, {4}, mx::uint8);
  first.eval();
  EXPECT_FALSE(inside(first));
  EXPECT_EQ(first.data<uint8_t>()[3], 0x7f);
}

TEST_F(MappedArray, SaysWhenThereIsLessToRead) {
  if (!on_cpu()) {
    GTEST_SKIP() << "a copy elsewhere";
  }
  mx::array odd = mapped_array(file_, kOffset + 1, {15}, mx::float32);
  std::filesystem::resize_file(folder_.file("a"), kOffset + 8);
  EXPECT_THROW(odd.eval(), FileError);
}

TEST_F(MappedArray, TakesScalarsEmptyShapesAndBfloat16) {
  const auto scalar = mapped_array(file_, kOffset + 12, {}, mx::float32);
  EXPECT_EQ(scalar.ndim(), 0u);
  EXPECT_EQ(scalar.item<float>(), 3);
  const auto empty = mapped_array(file_, file_->size(), {0, 4}, mx::float32);
  EXPECT_EQ(empty.shape(), (mx::Shape{0, 4}));
  EXPECT_EQ(mx::sum(empty).item<float>(), 0);
  // The upper half of a float32 is its bfloat16.
  const auto half = mapped_array(file_, kOffset + 14, {1}, mx::bfloat16);
  EXPECT_EQ(mx::astype(half, mx::float32).item<float>(), 3);
}

} // namespace
} // namespace zmlx
