// SPDX-License-Identifier: MIT
// Patterns of tokenizer.json (Oniguruma, Ruby syntax), matched by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace zmlx {

/// A stretch [begin, end) of a text; whether a pattern matched it.
struct Stretch {
  size_t begin, end;
  bool matched;
};

/// A compiled pattern. Const use is thread-safe.
/// Unicode classes mean what they mean to Oniguruma 6.9 (Unicode 16); script
/// names (\p{Han}) do too but for scripts of code points added since Unicode
/// 14. What the two engines read differently is rewritten, else rejected.
class Regex {
 public:
  /// Throws std::invalid_argument with the reason when the pattern is wrong,
  /// or uses what cannot be given the meaning it has to Oniguruma.
  explicit Regex(std::string_view pattern);

  /// The whole text cut into matches, left to right and never overlapping,
  /// and what lies between them. An empty match directly after a match is
  /// skipped. text: valid UTF-8. Throws std::runtime_error when matching
  /// takes too many steps or too much memory.
  std::vector<Stretch> cut(std::string_view text) const;

 private:
  std::shared_ptr<const void> code_; // pcre2_code
  std::string pattern_;
};

/// Rewrites a pattern of Oniguruma's Ruby syntax for PCRE2 (UTF, UCP,
/// MULTILINE). Throws std::invalid_argument on what has no equal.
std::string to_pcre2(std::string_view pattern);

/// The text cut at every occurrence of a literal, as Regex::cut does.
std::vector<Stretch> cut_at_literal(
    std::string_view text,
    std::string_view literal);

} // namespace zmlx
