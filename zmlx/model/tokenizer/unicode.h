// SPDX-License-Identifier: MIT
// UTF-8, character classes and normalisation as Rust and Oniguruma see them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace zmlx::unicode {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD"; // U+FFFD

/// Reads the code point at text[at] and moves `at` past it. text: valid UTF-8.
char32_t next(std::string_view text, size_t& at);

/// Where the code point that ends before text[at] begins. text: valid UTF-8.
size_t previous(std::string_view text, size_t at);

/// Appends a code point as UTF-8.
void append(std::string& out, char32_t code_point);

/// Replaces every maximal broken part by U+FFFD, as Rust's from_utf8_lossy.
std::string to_valid_utf8(std::string_view bytes);

/// Bytes at the end of `bytes` that begin a character and lack its rest: 0-3.
size_t unfinished_tail(std::string_view bytes);

/// Whether the bytes are valid UTF-8.
bool is_valid_utf8(std::string_view bytes);

/// The property White_Space.
bool is_space(char32_t c);
/// General categories Nd, Nl and No.
bool is_numeric(char32_t c);
/// \w of Rust's regex: letters, marks, digits, connectors, joiners.
bool is_word(char32_t c);
/// ASCII punctuation and the general categories P of Unicode 8.
bool is_punctuation(char32_t c);

/// The same text, byte for byte as long, in which every code point that PCRE2
/// and Oniguruma class differently is replaced by one that both class alike.
std::string with_stand_ins(std::string_view text);

enum class Form { kNfc, kNfd, kNfkc, kNfkd };

/// Normalises valid UTF-8, in time linear in its length but for sorting.
std::string normalize(std::string_view text, Form form);

} // namespace zmlx::unicode
