// SPDX-License-Identifier: MIT
// What to say when the command line cannot be understood.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

namespace zmlx::cli {

/// The command that was given, or null.
const CLI::App* command_of(const CLI::App& app);

/// One sentence or two for a command line that app could not parse: the first
/// unknown word with its nearest known one, a missing option, a bad number.
/// Without "zmlx CMD: " before it.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error);

/// Refuses a minus sign, which CLI11 would take for an unsigned option.
CLI::Validator not_negative();

} // namespace zmlx::cli
