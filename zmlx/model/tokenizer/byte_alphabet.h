// SPDX-License-Identifier: MIT
// GPT-2's alphabet: one visible character for each byte.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace zmlx {

/// The code points that stand for the bytes of `bytes`, as UTF-8.
std::string to_byte_alphabet(std::string_view bytes);

/// The bytes that `text` stands for, or nothing when a code point of it stands
/// for none. text: valid UTF-8.
std::optional<std::string> from_byte_alphabet(std::string_view text);

} // namespace zmlx
