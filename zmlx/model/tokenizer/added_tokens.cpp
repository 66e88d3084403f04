// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/added_tokens.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {
namespace {

AddedToken read_token(const Part& part, const Normalizer& normalizer) {
  AddedToken token;
  token.content = part.text("content");
  token.id = static_cast<TokenId>(part.number("id", kMaxTokenId));
  token.special = part.flag("special");
  token.match_normalized = part.flag("normalized");
  token.strip_left = part.flag("lstrip");
  token.strip_right = part.flag("rstrip");
  token.single_word = part.flag("single_word");
  token.normalized =
      token.match_normalized ? normalizer.apply(token.content) : token.content;
  if (!token.content.empty() && token.normalized.empty()) {
    part.fail("must not be empty once normalized.");
  }
  return token;
}

bool word_before(std::string_view text, size_t at) {
  size_t begin = at == 0 ? 0 : unicode::previous(text, at);
  return at > 0 && unicode::is_word(unicode::next(text, begin));
}

bool word_after(std::string_view text, size_t at) {
  return at < text.size() && unicode::is_word(unicode::next(text, at));
}

size_t spaces_before(std::string_view text, size_t at) {
  while (at > 0) {
    const size_t begin = unicode::previous(text, at);
    size_t end = begin;
    if (!unicode::is_space(unicode::next(text, end))) {
      break;
    }
    at = begin;
  }
  return at;
}

size_t spaces_after(std::string_view text, size_t at) {
  for (size_t end = at; end < text.size(); at = end) {
    if (!unicode::is_space(unicode::next(text, end))) {
      break;
    }
  }
  return at;
}

// The first range that does not end before `at`.
const PlainRange* range_from(const std::vector<PlainRange>& plain, size_t at) {
  const auto found = std::upper_bound(
      plain.begin(), plain.end(), at, [](size_t value, const PlainRange& one) {
        return value < one.second;
      });
  return found == plain.end() ? nullptr : &*found;
}

} // namespace

void TokenTrie::add(std::string_view text, size_t value) {
  size_t node = 0;
  for (const char byte : text) {
    const auto [child, is_new] =
        nodes_[node].children.emplace(byte, nodes_.size());
    node = child->second;
    if (is_new) {
      nodes_.emplace_back();
    }
  }
  nodes_[node].value = value;
}

std::pair<size_t, size_t> TokenTrie::longest(std::string_view text, size_t at)
    const {
  std::pair<size_t, size_t> best{kNoValue, 0};
  size_t node = 0;
  for (size_t end = at; end < text.size(); ++end) {
    const auto child = nodes_[node].children.find(text[end]);
    if (child == nodes_[node].children.end()) {
      break;
    }
    node = child->second;
    if (nodes_[node].value != kNoValue) {
      best = {nodes_[node].value, end + 1 - at};
    }
  }
  return best;
}

AddedTokens::AddedTokens(
    const Part& part,
    const Bpe& model,
    const Normalizer& normalizer) {
  if (!part.has("added_tokens")) {
    return;
  }
  TokenId next = model.size();
  for (const Part& item : part.items("added_tokens")) {
    AddedToken token = read_token(item, normalizer);
    if (token.content.empty()) {
      continue;
    }
    const auto known = by_content_.find(token.content);
    if (known != by_content_.end()) { // the later one counts
      token.id = tokens_[known->second].id;
      tokens_[known->second] = std::move(token);
      continue;
    }
    const auto in_model = model.id_of(token.content);
    const TokenId expected = in_model ? *in_model : next++;
    if (token.id != expected) {
      item.fail(concat(
          "'",
          token.content,
          "' must have the id ",
          expected,
          in_model ? ", as in the model" : ", the next free one",
          ", got ",
          token.id,
          "."));
    }
    by_id_.emplace(token.id, tokens_.size());
    by_content_.emplace(token.content, tokens_.size());
    tokens_.push_back(std::move(token));
  }
  for (size_t i = 0; i < tokens_.size(); ++i) {
    (tokens_[i].match_normalized ? normalized_ : raw_)
        .add(tokens_[i].normalized, i);
  }
}

std::vector<AddedMatch> AddedTokens::cut(
    std::string_view text,
    bool normalized,
    const std::vector<PlainRange>& plain) const {
  const TokenTrie& trie = normalized ? normalized_ : raw_;
  std::vector<AddedMatch> out;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const PlainRange* const range = range_from(plain, at);
    const bool in_plain = range && range->first <= at;
    // A token must not reach from the template into what a user wrote.
    const size_t limit =
        range ? (in_plain ? range->second : range->first) : text.size();
    const auto [index, length] = trie.longest(text.substr(0, limit), at);
    if (length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = at, end = at + length;
    at = end;
    if (in_plain && token.special) {
      continue;
    }
    if (token.single_word &&
        (word_before(text, begin) || word_after(text, end))) {
      continue;
    }
    if (token.strip_left) {
      begin = std::max(spaces_before(text, begin), done);
    }
    if (token.strip_right) {
      end = spaces_after(text, end);
    }
    if (done < begin) {
      out.push_back({done, begin, nullptr});
    }
    out.push_back({begin, end, &token});
    done = end;
  }
  if (done < text.size()) {
    out.push_back({done, text.size(), nullptr});
  }
  return out;
}

const AddedToken* AddedTokens::find(TokenId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

} // namespace zmlx
