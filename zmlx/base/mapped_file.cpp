// SPDX-License-Identifier: MIT
#include "zmlx/base/mapped_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

// Reads [begin, end) of the file to `to`. Returns an errno, 0 when all was
// read.
int read_range(int descriptor, size_t begin, size_t end, char* to) {
  while (begin < end) {
    const ssize_t got =
        ::pread(descriptor, to, end - begin, static_cast<off_t>(begin));
    if (got > 0) {
      begin += static_cast<size_t>(got);
      to += got;
    } else if (got == 0) {
      return ENODATA; // the file became shorter
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

#ifdef MADV_HUGEPAGE
// Reads the first `size` bytes, on a few threads since one is bound by copying.
// Returns an errno, 0 when all was read.
int read_all(int descriptor, char* to, size_t size) {
  constexpr size_t kPart = size_t{16} << 20;
  std::atomic<size_t> next{0};
  std::atomic<int> error{0};
  const auto work = [&] {
    for (size_t part; (part = kPart * next++) < size && error == 0;) {
      const size_t end = std::min(size, part + kPart);
      if (const int failed = read_range(descriptor, part, end, to + part)) {
        error = failed;
      }
    }
  };
  std::vector<std::thread> others;
  const size_t parts = (size + kPart - 1) / kPart;
  const size_t threads =
      std::clamp(std::thread::hardware_concurrency(), 1u, 4u);
  for (size_t i = 1; i < std::min(parts, threads); ++i) {
    others.emplace_back(work);
  }
  work();
  for (auto& thread : others) {
    thread.join();
  }
  return error;
}
#endif

} // namespace

MappedFile::MappedFile(const std::string& path, Links links) : path_(path) {
  // O_NONBLOCK: opening a pipe must not wait for a writer.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK |
      (links == Links::kRefuse ? O_NOFOLLOW : 0);
  file_.number = ::open(path.c_str(), flags);
  if (file_.number < 0) {
    const int error = errno;
    if (links == Links::kRefuse && error == ELOOP) {
      bad_file(path, "must not be a symbolic link.");
    }
    bad_file(path, "cannot be opened: ", std::strerror(error), ".");
  }
  struct stat info;
  if (::fstat(file_.number, &info) != 0) {
    bad_file(path, "cannot be read: ", std::strerror(errno), ".");
  }
  if (!S_ISREG(info.st_mode)) {
    bad_file(path, "must be a regular file.");
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) {
    return;
  }
  int map_flags = MAP_PRIVATE;
#ifdef MAP_NORESERVE
  // A private writable map counts as memory to be set aside otherwise, and one
  // larger than the machine's memory would be refused.
  map_flags |= MAP_NORESERVE;
#endif
  void* map = ::mmap(
      nullptr, size_, PROT_READ | PROT_WRITE, map_flags, file_.number, 0);
  if (map == MAP_FAILED) {
    bad_file(
        path,
        "cannot be mapped (",
        size_,
        " bytes): ",
        std::strerror(errno),
        ".");
  }
  data_ = static_cast<char*>(map);
}

MappedFile::Descriptor::~Descriptor() {
  if (number >= 0) {
    ::close(number);
  }
}

MappedFile::~MappedFile() {
  release();
}

void MappedFile::release() {
  if (region_ != nullptr) {
    ::munmap(region_, region_size_);
  } else if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      region_(std::exchange(other.region_, nullptr)),
      region_size_(std::exchange(other.region_size_, 0)) {
  std::swap(file_.number, other.file_.number);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_.number, other.file_.number);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(region_, other.region_);
  std::swap(region_size_, other.region_size_);
  return *this;
}

bool MappedFile::read_into_huge_pages([[maybe_unused]] size_t aligned) {
#ifdef MADV_HUGEPAGE
  constexpr size_t kHuge = size_t{2} << 20, kLine = 64;
  if (size_ == 0 || region_ != nullptr) {
    return region_ != nullptr;
  }
  const size_t size = size_ + kHuge + kLine;
  void* map = ::mmap(
      nullptr,
      size,
      PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS,
      -1,
      0);
  if (map == MAP_FAILED) {
    return false;
  }
  auto* const region = static_cast<char*>(map);
  const size_t to_huge = (kHuge - reinterpret_cast<uintptr_t>(region) % kHuge);
  char* const to = region + to_huge % kHuge + (kLine - aligned % kLine) % kLine;
  if (::madvise(region, size, MADV_HUGEPAGE) != 0) {
    ::munmap(map, size);
    return false;
  }
  if (const int error = read_all(file_.number, to, size_)) {
    ::munmap(map, size);
    bad_file(path_, "cannot be read: ", std::strerror(error), ".");
  }
  release();
  data_ = to;
  region_ = region;
  region_size_ = size;
  return true;
#else
  return false;
#endif
}

void MappedFile::read(size_t offset, size_t length, char* to) const {
  if (length > size_ || offset > size_ - length) {
    bad_file(
        path_,
        "must hold ",
        length,
        " bytes from ",
        offset,
        " on, got ",
        size_,
        " in all.");
  }
  if (const int error = read_range(file_.number, offset, offset + length, to)) {
    bad_file(path_, "cannot be read: ", std::strerror(error), ".");
  }
}

void MappedFile::advise(Advice advice, size_t offset, size_t length) const {
  if (region_ != nullptr) {
    return;
  }
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  size_t begin = std::min(offset, size_);
  size_t end = begin + std::min(length, size_ - begin);
  if (advice == Advice::kWillNeed) {
    begin = begin / page * page;
  } else {
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
  }
  if (begin < end) {
    // Advice only: a refusal costs time, not correctness.
    ::madvise(
        data_ + begin,
        end - begin,
        advice == Advice::kWillNeed ? MADV_WILLNEED : MADV_DONTNEED);
  }
}

} // namespace zmlx
