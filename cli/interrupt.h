// SPDX-License-Identifier: MIT
// Ctrl-C as a wish to stop, while an Interrupt object lives.
#pragma once

namespace zmlx::cli {

/// Exit code of a command that Ctrl-C stopped.
inline constexpr int kInterrupted = 130;

/// Thrown by callbacks that cannot return early.
struct Interrupted {};

/// While it lives the first SIGINT only sets a flag; the second one ends the
/// program at once. One at a time. Does nothing where SIGINT is ignored.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool wanted() const;
  /// Throws Interrupted if wanted.
  void check() const;
};

} // namespace zmlx::cli
