// SPDX-License-Identifier: MIT
#include "zmlx/base/mapped_file.h"

#include <filesystem>

#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "zmlx/base/error.h"
#include "zmlx/base/json.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

class MappedFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / concat("zmlx_map_", ::getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override {
    fs::remove_all(folder_);
  }
  std::string path(const std::string& name) const {
    return (folder_ / name).string();
  }
  static std::string message_of(
      const std::string& path,
      MappedFile::Links links = MappedFile::Links::kFollow) {
    try {
      MappedFile file(path, links);
    } catch (const FileError& error) {
      return error.what();
    }
    return "";
  }

  fs::path folder_;
};

TEST_F(MappedFiles, ShowsTheBytesOfTheFile) {
  write_file(path("a"), "some bytes");
  const MappedFile file(path("a"));
  EXPECT_EQ(file.text(), "some bytes");
  EXPECT_EQ(file.path(), path("a"));
}

TEST_F(MappedFiles, TakesAnEmptyFile) {
  write_file(path("a"), "");
  const MappedFile file(path("a"));
  EXPECT_EQ(file.size(), 0u);
  EXPECT_EQ(file.data(), nullptr);
  file.advise(MappedFile::Advice::kWillNeed, 0, 100);
}

TEST_F(MappedFiles, AWriteNeverReachesTheFile) {
  write_file(path("a"), "some bytes");
  {
    const MappedFile file(path("a"));
    file.data()[0] = 'X';
    EXPECT_EQ(file.text(), "Xome bytes");
  }
  EXPECT_EQ(read_file(path("a")), "some bytes");
}

TEST_F(MappedFiles, MovesLeaveNothingBehind) {
  write_file(path("a"), "aaa");
  write_file(path("b"), "bb");
  MappedFile first(path("a"));
  MappedFile second(std::move(first));
  EXPECT_EQ(first.data(), nullptr);
  EXPECT_EQ(second.text(), "aaa");
  second = MappedFile(path("b"));
  EXPECT_EQ(second.text(), "bb");
}

TEST_F(MappedFiles, AdviceKeepsTheBytesAndAnyRangeIsTaken) {
  const std::string text(20000, 'q');
  write_file(path("a"), text);
  const MappedFile file(path("a"));
  for (const auto advice :
       {MappedFile::Advice::kWillNeed, MappedFile::Advice::kDontNeed}) {
    file.advise(advice, 0, text.size());
    file.advise(advice, 5000, 9000);
    file.advise(advice, 30000, 5);
    file.advise(advice, 19999, SIZE_MAX);
    EXPECT_EQ(file.text(), text);
  }
}

TEST_F(MappedFiles, CopiesAnyRangeWithoutTheMap) {
  write_file(path("a"), "0123456789");
  const MappedFile file(path("a"));
  char bytes[10];
  file.read(3, 4, bytes);
  EXPECT_EQ(std::string(bytes, 4), "3456");
  file.read(0, 10, bytes);
  EXPECT_EQ(std::string(bytes, 10), "0123456789");
  file.read(10, 0, bytes);
  // The file of the map, whatever stands at its path now.
  fs::remove(path("a"));
  write_file(path("a"), "another one");
  file.read(0, 2, bytes);
  EXPECT_EQ(std::string(bytes, 2), "01");
}

TEST_F(MappedFiles, RefusesToCopyWhatTheFileDoesNotHave) {
  write_file(path("a"), "0123456789");
  MappedFile file(path("a"));
  char bytes[20];
  EXPECT_THROW(file.read(3, 8, bytes), FileError);
  EXPECT_THROW(file.read(SIZE_MAX, 2, bytes), FileError);
  EXPECT_THROW(file.read(2, SIZE_MAX, bytes), FileError);
  fs::resize_file(path("a"), 5);
  EXPECT_THROW(file.read(3, 4, bytes), FileError);
}

TEST_F(MappedFiles, FollowsALinkOnlyWhereTheCallerAllowsIt) {
  write_file(path("a"), "x");
  fs::create_symlink("a", path("link"));
  EXPECT_EQ(message_of(path("link")), "");
  EXPECT_EQ(
      message_of(path("link"), MappedFile::Links::kRefuse),
      path("link") + ": must not be a symbolic link.");
}

TEST_F(MappedFiles, RefusesWhatIsNoRegularFile) {
  EXPECT_NE(message_of(path("none")).find("No such file"), std::string::npos);
  EXPECT_NE(
      message_of(folder_.string()).find("must be a regular file"),
      std::string::npos);
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_NE(
      message_of(path("pipe")).find("must be a regular file"),
      std::string::npos);
}

} // namespace
} // namespace zmlx
