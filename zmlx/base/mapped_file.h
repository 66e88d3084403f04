// SPDX-License-Identifier: MIT
// A file mapped into memory for reading.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace zmlx {

/// Maps a whole regular file. The map is private and writable: a stray write
/// lands in a page of our own, never in the file, and does not crash. A file
/// that another process truncates while it is mapped raises SIGBUS on reading.
class MappedFile {
 public:
  /// Whether a symbolic link in the last place of the path is followed.
  enum class Links { kFollow, kRefuse };
  /// What the pages of a range are needed for: soon, or no longer.
  enum class Advice { kWillNeed, kDontNeed };

  /// Throws FileError if path is not a regular file that can be read.
  explicit MappedFile(const std::string& path, Links links = Links::kFollow);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::string& path() const {
    return path_;
  }
  /// Bytes.
  size_t size() const {
    return size_;
  }
  /// The first byte; null for an empty file.
  char* data() const {
    return data_;
  }
  /// Not after read_into_huge_pages().
  bool is_mapped() const {
    return data_ != nullptr && region_ == nullptr;
  }
  std::string_view text() const {
    return {data_, size_};
  }

  /// Reads the file into memory of huge pages and lets go of the map; byte
  /// `aligned` of it then starts a cache line. Returns false, and leaves all as
  /// it was, where the system has no huge pages to ask for or no memory. For a
  /// file that is read whole many times: two cores got 12 to 18% more from huge
  /// pages. Throws FileError when reading fails.
  bool read_into_huge_pages(size_t aligned);

  /// Copies [offset, offset + length) to memory without going through the map,
  /// so that no page of it becomes resident here. Throws FileError where the
  /// range is not in the file or reading fails. From any number of threads.
  void read(size_t offset, size_t length, char* to) const;

  /// Tells the kernel about [offset, offset + length), cut to the file.
  /// kWillNeed takes every page that the range touches, kDontNeed only pages
  /// that lie wholly in it; they are read again from the file when touched.
  /// Does nothing after read_into_huge_pages().
  void advise(Advice advice, size_t offset, size_t length) const;

 private:
  void release();

  // Closes the file.
  struct Descriptor {
    Descriptor() = default;
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor();
    int number = -1;
  };

  std::string path_;
  Descriptor file_;
  char* data_ = nullptr;
  size_t size_ = 0;
  // What to unmap when it is not [data_, data_ + size_).
  char* region_ = nullptr;
  size_t region_size_ = 0;
};

/// Bytes of a mapped file, from an offset on.
struct FilePlace {
  std::shared_ptr<const MappedFile> file;
  size_t offset;
};

} // namespace zmlx
