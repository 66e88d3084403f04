// SPDX-License-Identifier: MIT
// Small text helpers shared by errors, tables and command lines.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace zmlx {

/// Splits at every separator; "a,,b" gives three parts, "" gives none.
std::vector<std::string> split(std::string_view text, char separator);

/// Joins parts with a separator.
std::string join(
    const std::vector<std::string>& parts,
    std::string_view separator);

/// The candidate nearest to word by edit distance (neighbours that changed
/// places count once), or "" when none is near: more than a third of the
/// letters and one differ, or two of three.
std::string nearest(
    std::string_view word,
    const std::vector<std::string>& candidates);

/// " Did you mean 'x'?" for the nearest candidate, or "".
std::string did_you_mean(
    std::string_view word,
    const std::vector<std::string>& candidates);

/// Bytes in decimal units with two decimals: "4.72 GB", "12 B".
std::string human_bytes(uint64_t bytes);

} // namespace zmlx
