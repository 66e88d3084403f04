// SPDX-License-Identifier: MIT
#include "cli/progress.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <sys/ioctl.h>
#include <unistd.h>

#include "zmlx/base/error.h"

namespace zmlx::cli {
namespace {

bool is_terminal() {
  const char* term = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) && term && std::string_view(term) != "dumb";
}

size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    return size.ws_col;
  }
  return 80;
}

} // namespace

Progress::Progress(std::string label)
    : label_(std::move(label)), terminal_(is_terminal()) {
  show(label_);
}

Progress::~Progress() {
  clear();
}

void Progress::update(long done, long total, const char* unit) {
  update(concat(done, '/', total, ' ', unit));
}

void Progress::update(const std::string& detail) {
  const auto now = Clock::now();
  if (now - last_ >= std::chrono::milliseconds(100)) {
    last_ = now;
    show(label_ + ": " + detail);
  }
}

void Progress::clear() {
  if (shown_) {
    shown_ = false;
    std::fputs("\r\033[K", stderr);
  }
}

// A line that wraps could not be rewritten, so it is cut.
void Progress::show(const std::string& line) {
  if (terminal_) {
    shown_ = true;
    const std::string cut = line.substr(0, terminal_width() - 1);
    std::fprintf(stderr, "\r%s\033[K", cut.c_str());
  }
}

} // namespace zmlx::cli
