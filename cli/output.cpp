// SPDX-License-Identifier: MIT
#include "cli/output.h"

#include <cerrno>
#include <cstring>
#include <iostream>

#include <poll.h>
#include <unistd.h>

#include "zmlx/base/error.h"

namespace zmlx::cli {

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(size_t(written));
    } else if (errno == EPIPE) {
      throw ClosedPipe();
    } else if (errno != EINTR) {
      bad_file("standard output", std::strerror(errno));
    }
  }
}

void flush_stdout() {
  std::cout.flush();
  if (std::cout) {
    return;
  }
  pollfd out{STDOUT_FILENO, POLLOUT, 0};
  if (::poll(&out, 1, 0) > 0 && (out.revents & POLLERR)) {
    throw ClosedPipe();
  }
  bad_file("standard output", "must take what is written, but does not.");
}

std::string read_stdin(size_t max_bytes) {
  std::string text;
  char block[1 << 16];
  for (;;) {
    const ssize_t count = ::read(STDIN_FILENO, block, sizeof block);
    if (count == 0) {
      return text;
    }
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      bad_file("standard input", std::strerror(errno));
    }
    text.append(block, size_t(count));
    if (text.size() > max_bytes) {
      bad_file(
          "standard input", "must be at most ", max_bytes, " bytes, got more.");
    }
  }
}

} // namespace zmlx::cli
