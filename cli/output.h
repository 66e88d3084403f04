// SPDX-License-Identifier: MIT
// Standard input and output of the commands.
#pragma once

#include <string>
#include <string_view>

namespace zmlx::cli {

/// Thrown when whoever read standard output has gone: the program ends
/// quietly, with exit code 0.
struct ClosedPipe {};

/// Writes text to standard output at once. Throws ClosedPipe, or FileError
/// when it cannot be written (a full disk).
void print(std::string_view text);

/// Flushes what was written through std::cout. Throws as print() does.
void flush_stdout();

/// Reads standard input to its end, at most max_bytes. Throws FileError.
std::string read_stdin(size_t max_bytes = 64u << 20);

} // namespace zmlx::cli
