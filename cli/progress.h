// SPDX-License-Identifier: MIT
// One line on standard error that is rewritten as work goes on.
#pragma once

#include <chrono>
#include <string>

namespace zmlx::cli {

/// Shows nothing unless standard error is a terminal. The line is cleared when
/// the object goes or clear() is called; cursor and colours are left alone.
class Progress {
 public:
  /// label: what is being done, such as "Reading the prompt".
  explicit Progress(std::string label);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Shows "label: done/total unit", at most ten times a second.
  void update(long done, long total, const char* unit);
  /// Shows "label: detail", at most ten times a second.
  void update(const std::string& detail);
  void clear();

 private:
  void show(const std::string& line);

  using Clock = std::chrono::steady_clock;
  const std::string label_;
  const bool terminal_;
  bool shown_ = false;
  Clock::time_point last_{};
};

} // namespace zmlx::cli
