// SPDX-License-Identifier: MIT
// JSON reading with limits: depth, size and duplicate keys are checked.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace zmlx {

/// JSON that keeps the order of keys, for what people read.
using Json = nlohmann::ordered_json;

/// Parses text; `origin` names it in errors. Throws FileError with line and
/// column on bad syntax, a repeated key, nesting deeper than 64, or invalid
/// UTF-8.
Json parse_json(std::string_view text, const std::string& origin);

/// Reads and parses a file of at most max_bytes. Throws FileError.
Json read_json(const std::string& path, size_t max_bytes = 256u << 20);

/// Reads a whole file of at most max_bytes. Throws FileError.
std::string read_file(const std::string& path, size_t max_bytes = 256u << 20);

/// Writes text to path through a temporary file and a rename, so that a
/// reader never sees half of it. Throws FileError.
void write_file(const std::string& path, std::string_view text);

} // namespace zmlx
