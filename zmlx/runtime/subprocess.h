// SPDX-License-Identifier: MIT
// Runs a program without a shell and keeps what it prints.
#pragma once

#include <string>
#include <vector>

namespace zmlx {

struct ProgramResult {
  bool started = false;
  int status = -1; // exit status; 128 + signal if it was ended by one
  std::string output; // stdout and stderr as they came
};

/// Runs command[0] from PATH with the rest as arguments, in the C locale.
ProgramResult run_program(const std::vector<std::string>& command);

} // namespace zmlx
