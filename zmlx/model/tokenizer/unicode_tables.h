// SPDX-License-Identifier: MIT
// Tables that make PCRE2 and utf8proc answer as Hugging Face's tokenizers do.
#pragma once

#include <span>

namespace zmlx::unicode {

/// Code points first to last, both included.
struct Range {
  char32_t first, last;
};

/// Code points first to last mean to a pattern what `meaning` means to it.
struct StandIn {
  char32_t first, last, meaning;
};

/// Code points of Unicode 15 to 16 (PCRE2 10.42 knows 14; Oniguruma, which
/// tokenizers uses, knows 16), each with an older one of the same general
/// category and UTF-8 length; and U+180E, a space to PCRE2 only. Sorted.
std::span<const StandIn> stand_ins();

/// Code points that tokenizers' normaliser (Unicode 9) leaves alone as if they
/// were letters, though later versions decompose or reorder them. Sorted.
std::span<const Range> inert_in_normalization();

/// Punctuation added after Unicode 8, which the Punctuation pre-tokenizer
/// does not take for punctuation. Sorted.
std::span<const Range> young_punctuation();

} // namespace zmlx::unicode
