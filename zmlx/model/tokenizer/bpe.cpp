// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/bpe.h"

#include <cstdio>
#include <queue>

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {
namespace {

constexpr TokenId kNoToken = -1;
constexpr uint32_t kNone = UINT32_MAX;

uint64_t pair_key(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
      static_cast<uint32_t>(right);
}

} // namespace

// The symbols of a word, a list linked both ways through one vector.
struct Bpe::Word {
  struct Symbol {
    TokenId id;
    uint32_t previous, next;
    bool merged_away;
  };
  std::vector<Symbol> symbols;

  void add(TokenId id) {
    const auto at = static_cast<uint32_t>(symbols.size());
    if (at > 0) {
      symbols.back().next = at;
    }
    symbols.push_back({id, at > 0 ? at - 1 : kNone, kNone, false});
  }
};

Bpe::Bpe(const Part& part) {
  const std::string type = part.text("type", "BPE");
  if (type != "BPE") {
    part.fail(concat("must be of type BPE, got '", type, "'."));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!part.text(key, "").empty()) {
      part.at(key).fail("must be null: it is not supported.");
    }
  }
  if (part.has("dropout") && part.at("dropout").json() != 0.0) {
    part.at("dropout").fail("must be null: ids would be random.");
  }
  byte_fallback_ = part.flag("byte_fallback", false);
  fuse_unknown_ = part.flag("fuse_unk", false);
  ignore_merges_ = part.flag("ignore_merges", false);
  read_vocab(part);
  read_merges(part);
  read_byte_tokens();
  if (part.has("unk_token")) {
    unknown_ = id_of(part.text("unk_token"));
    if (!unknown_) {
      part.at("unk_token")
          .fail(concat(
              "must be in the vocabulary, got '",
              part.text("unk_token"),
              "'."));
    }
  }
}

void Bpe::read_vocab(const Part& part) {
  const Part vocab = part.at("vocab");
  if (!vocab.json().is_object()) {
    vocab.fail("must be an object.");
  }
  ids_.reserve(vocab.json().size());
  tokens_.reserve(vocab.json().size());
  for (const auto& [token, value] : vocab.json().items()) {
    if (!value.is_number_unsigned() ||
        value.get<uint64_t>() >= static_cast<uint64_t>(kMaxTokenId)) {
      vocab.fail(concat(
          "must give '",
          token,
          "' an id of 0 to ",
          kMaxTokenId - 1,
          ", got ",
          value.dump(),
          "."));
    }
    const auto id = value.get<TokenId>();
    const auto entry = ids_.emplace(token, id).first;
    const auto [known, is_new] = tokens_.emplace(id, &entry->first);
    if (!is_new) {
      vocab.fail(concat(
          "must give every token its own id, got ",
          id,
          " for '",
          *known->second,
          "' and '",
          token,
          "'."));
    }
  }
}

void Bpe::read_merges(const Part& part) {
  const Part list = part.at("merges");
  if (!list.json().is_array()) {
    list.fail("must be an array.");
  }
  merges_.reserve(list.json().size());
  size_t rank = 0;
  for (const auto& merge : list.json()) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
        merge[1].is_string()) {
      add_merge(
          list, rank, merge[0].get<std::string>(), merge[1].get<std::string>());
    } else if (merge.is_string()) {
      const auto text = merge.get<std::string>();
      const size_t space = text.find(' ');
      if (text.rfind("#version", 0) == 0) {
        continue;
      }
      if (space == text.npos || text.find(' ', space + 1) != text.npos) {
        list.fail(concat(
            "must hold two tokens and one space each, entry ",
            rank,
            " is '",
            text,
            "'."));
      }
      add_merge(list, rank, text.substr(0, space), text.substr(space + 1));
    } else {
      list.fail(concat(
          "must hold \"a b\" or [\"a\", \"b\"], entry ",
          rank,
          " is ",
          merge.dump(),
          "."));
    }
    ++rank;
  }
}

void Bpe::add_merge(
    const Part& list,
    size_t rank,
    const std::string& left,
    const std::string& right) {
  const auto known = [&](const std::string& token) {
    const auto id = id_of(token);
    if (!id) {
      list.fail(concat(
          "must name tokens of the vocabulary, entry ",
          rank,
          " has '",
          token,
          "'."));
    }
    return *id;
  };
  const TokenId a = known(left), b = known(right), both = known(left + right);
  merges_.insert_or_assign(
      pair_key(a, b), Merge{static_cast<uint32_t>(rank), both});
}

void Bpe::read_byte_tokens() {
  short_ids_.fill(kNoToken);
  for (char32_t c = 0; c < short_ids_.size(); ++c) {
    std::string text;
    unicode::append(text, c);
    short_ids_[c] = id_of(text).value_or(kNoToken);
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    byte_ids_[byte] = id_of(name).value_or(kNoToken);
  }
}

std::optional<TokenId> Bpe::id_of(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const std::string* Bpe::token_of(TokenId id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : found->second;
}

TokenId Bpe::character_id(char32_t code_point, std::string_view text) const {
  return code_point < short_ids_.size() ? short_ids_[code_point]
                                        : id_of(text).value_or(kNoToken);
}

bool Bpe::add_bytes(std::string_view text, Word& word) const {
  const size_t before = word.symbols.size();
  for (const char byte : text) {
    const TokenId id = byte_ids_[static_cast<unsigned char>(byte)];
    if (id == kNoToken) {
      if (before > 0) {
        word.symbols[before - 1].next = kNone;
      }
      word.symbols.resize(before);
      return false;
    }
    word.add(id);
  }
  return true;
}

// An unknown token is written only when the next known character comes: byte
// tokens overtake it, as they do in Hugging Face's tokenizers.
Bpe::Word Bpe::characters(std::string_view text) const {
  Word word;
  word.symbols.reserve(text.size());
  bool unknown_waits = false;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t code_point = unicode::next(text, at);
    const auto character = text.substr(begin, at - begin);
    const TokenId id = character_id(code_point, character);
    if (id != kNoToken) {
      if (unknown_waits) {
        word.add(*unknown_);
        unknown_waits = false;
      }
      word.add(id);
    } else if (byte_fallback_ && add_bytes(character, word)) {
      continue;
    } else if (unknown_) {
      if (unknown_waits && !fuse_unknown_) {
        word.add(*unknown_);
      }
      unknown_waits = true;
    }
  }
  if (unknown_waits) {
    word.add(*unknown_);
  }
  return word;
}

const Bpe::Merge* Bpe::merge_of(TokenId left, TokenId right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::merge_all(Word& word) const {
  struct Candidate {
    uint32_t rank, at;
    TokenId result;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  auto& symbols = word.symbols;
  std::vector<Candidate> found;
  found.reserve(symbols.size());
  std::priority_queue queue(std::greater<Candidate>(), std::move(found));
  const auto propose = [&](uint32_t left) {
    const uint32_t right = left == kNone ? kNone : symbols[left].next;
    if (right == kNone) {
      return;
    }
    if (const auto* merge = merge_of(symbols[left].id, symbols[right].id)) {
      queue.push({merge->rank, left, merge->result});
    }
  };
  for (uint32_t i = 0; i < symbols.size(); ++i) {
    propose(i);
  }
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    auto& left = symbols[best.at];
    if (left.merged_away || left.next == kNone) {
      continue;
    }
    auto& right = symbols[left.next];
    const Merge* now = merge_of(left.id, right.id);
    if (!now || now->result != best.result) {
      continue; // one of the two has merged with another meanwhile
    }
    left.id = best.result;
    left.next = right.next;
    right.merged_away = true;
    if (left.next != kNone) {
      symbols[left.next].previous = best.at;
    }
    propose(left.previous);
    propose(best.at);
  }
}

void Bpe::encode(std::string_view word, std::vector<TokenId>& out) const {
  if (ignore_merges_) {
    if (const auto id = id_of(word)) {
      out.push_back(*id);
      return;
    }
  }
  Word symbols = characters(word);
  if (symbols.symbols.size() > 1) {
    merge_all(symbols);
  }
  for (const auto& symbol : symbols.symbols) {
    if (!symbol.merged_away) {
      out.push_back(symbol.id);
    }
  }
}

} // namespace zmlx
