// SPDX-License-Identifier: MIT
// Byte pair encoding: a word to the ids of its tokens.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "zmlx/model/tokenizer/part.h"

namespace zmlx {

using TokenId = int32_t;

constexpr int64_t kMaxTokenId = 10'000'000;

/// Looks strings up by string_view without a copy.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};

template <class Value>
using TextMap =
    std::unordered_map<std::string, Value, TextHash, std::equal_to<>>;

/// The BPE model of a tokenizer.json (Sennrich et al. 2016, arXiv 1508.07909),
/// with byte_fallback, unk_token, fuse_unk and ignore_merges.
class Bpe {
 public:
  Bpe() = default;
  /// part: the member `model`. Throws FileError.
  explicit Bpe(const Part& part);

  /// Appends the ids of a word; the lowest-ranked pair merges first, the
  /// leftmost of equals. Takes O(n log n) steps for n characters. A character
  /// that has no token, no byte tokens and no unk_token vanishes.
  void encode(std::string_view word, std::vector<TokenId>& out) const;

  std::optional<TokenId> id_of(std::string_view token) const;
  const std::string* token_of(TokenId id) const; // null: no such id
  int size() const {
    return static_cast<int>(ids_.size());
  }

 private:
  struct Merge {
    uint32_t rank;
    TokenId result;
  };
  struct Word;

  void read_vocab(const Part& part);
  void read_merges(const Part& part);
  void add_merge(
      const Part& list,
      size_t rank,
      const std::string& left,
      const std::string& right);
  void read_byte_tokens();

  TokenId character_id(char32_t code_point, std::string_view text) const;
  bool add_bytes(std::string_view text, Word& word) const;
  Word characters(std::string_view text) const;
  const Merge* merge_of(TokenId left, TokenId right) const;
  void merge_all(Word& word) const;

  TextMap<TokenId> ids_;
  std::unordered_map<TokenId, const std::string*> tokens_; // keys of ids_
  std::unordered_map<uint64_t, Merge> merges_; // by left << 32 | right
  std::array<TokenId, 0x180> short_ids_{}; // of one-character tokens, or -1
  std::array<TokenId, 256> byte_ids_{}; // of <0x00> to <0xFF>, or -1
  std::optional<TokenId> unknown_;
  bool byte_fallback_ = false, fuse_unknown_ = false, ignore_merges_ = false;
};

} // namespace zmlx
