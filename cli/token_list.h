// SPDX-License-Identifier: MIT
// Lists of whole numbers on the command line: "1,2,3".
#pragma once

#include <string>
#include <vector>

namespace zmlx::cli {

/// Reads numbers of 0 or more with commas between. Throws std::invalid_argument
/// "[command] option must be what such as 1,2,3, got '...'." for anything else,
/// and for an empty list.
std::vector<int> parse_list(
    const std::string& command,
    const std::string& option,
    const std::string& what,
    const std::string& text);

} // namespace zmlx::cli
