// SPDX-License-Identifier: MIT
// Tokens that are found in the text before it is cut into words.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "zmlx/model/tokenizer/bpe.h"
#include "zmlx/model/tokenizer/normalizer.h"

namespace zmlx {

struct AddedToken {
  std::string content;
  std::string normalized; // content as the normaliser leaves it
  TokenId id = 0;
  bool special = false;
  bool match_normalized = false; // looked for after normalisation
  bool strip_left = false, strip_right = false; // takes spaces beside it
  bool single_word = false;
};

/// A stretch of text; token is null for what lies between tokens.
struct AddedMatch {
  size_t begin, end;
  const AddedToken* token;
};

/// A stretch [first, second) of text in which special tokens are text.
using PlainRange = std::pair<size_t, size_t>;

/// Finds the longest of a set of strings that begins at a place.
class TokenTrie {
 public:
  void add(std::string_view text, size_t value);
  /// The value and length of the longest string at text[at]; length 0: none.
  std::pair<size_t, size_t> longest(std::string_view text, size_t at) const;

 private:
  static constexpr size_t kNoValue = SIZE_MAX;
  struct Node {
    std::unordered_map<char, size_t> children;
    size_t value = kNoValue;
  };
  std::vector<Node> nodes_{1};
};

class AddedTokens {
 public:
  AddedTokens() = default;
  /// part: the whole tokenizer.json. Throws FileError when an id is not the
  /// one that Hugging Face's tokenizers would give the token: its id in the
  /// model, or the next free one.
  AddedTokens(const Part& part, const Bpe& model, const Normalizer& normalizer);

  /// Cuts text at the tokens, leftmost and then longest first; no empty
  /// stretches but for a token's own. normalized picks the tokens that are
  /// looked for after normalisation, or the others. plain: sorted.
  std::vector<AddedMatch> cut(
      std::string_view text,
      bool normalized,
      const std::vector<PlainRange>& plain) const;

  const AddedToken* find(TokenId id) const;
  const AddedToken* find(std::string_view content) const;
  const std::vector<AddedToken>& all() const {
    return tokens_;
  }

 private:
  std::vector<AddedToken> tokens_;
  std::unordered_map<TokenId, size_t> by_id_;
  TextMap<size_t> by_content_;
  TokenTrie raw_, normalized_;
};

} // namespace zmlx
