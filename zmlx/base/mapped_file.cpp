// SPDX-License-Identifier: MIT
#include "zmlx/base/mapped_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) {
      ::close(fd);
    }
  }
};

} // namespace

MappedFile::MappedFile(const std::string& path, Links links) : path_(path) {
  // O_NONBLOCK: opening a pipe must not wait for a writer.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK |
      (links == Links::kRefuse ? O_NOFOLLOW : 0);
  const Descriptor file{::open(path.c_str(), flags)};
  if (file.fd < 0) {
    const int error = errno;
    if (links == Links::kRefuse && error == ELOOP) {
      bad_file(path, "must not be a symbolic link.");
    }
    bad_file(path, "cannot be opened: ", std::strerror(error), ".");
  }
  struct stat info;
  if (::fstat(file.fd, &info) != 0) {
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
  void* map =
      ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, map_flags, file.fd, 0);
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

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::advise(Advice advice, size_t offset, size_t length) const {
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
