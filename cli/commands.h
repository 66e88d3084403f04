// SPDX-License-Identifier: MIT
// The commands of the program: one file each, added to the parser here.
#pragma once

#include <CLI/CLI.hpp>

namespace zmlx::cli {

/// Exit codes: 0 good, 1 a check failed or the work could not be done, 2 wrong
/// use. A command returns one of them through this type.
inline constexpr int kGood = 0, kFailed = 1, kWrongUse = 2;

/// Adds a subcommand; its callback stores the exit code into *exit_code.
void add_generate(CLI::App& app, int* exit_code);
void add_validate(CLI::App& app, int* exit_code);
void add_bench(CLI::App& app, int* exit_code);
void add_report(CLI::App& app, int* exit_code);
void add_compare(CLI::App& app, int* exit_code);
void add_logits(CLI::App& app, int* exit_code);
void add_tokenize(CLI::App& app, int* exit_code);
void add_synth(CLI::App& app, int* exit_code);
void add_kernels(CLI::App& app, int* exit_code);
void add_doctor(CLI::App& app, int* exit_code);

} // namespace zmlx::cli
