// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <map>

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/byte_alphabet.h"
#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {
namespace {

using Step = PreTokenizer::Step;
using Pieces = std::vector<Piece>;

// The pattern of GPT-2, which ByteLevel has built in.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)"
    R"(|\s+(?!\S)|\s+)";

bool keeps_removed(const Stretch& stretch, Behavior behavior) {
  return behavior != Behavior::kRemoved || !stretch.matched;
}

void emit(
    const Piece& piece,
    const std::vector<Stretch>& stretches,
    Behavior behavior,
    Pieces& out) {
  for (const auto& stretch : merge(stretches, behavior)) {
    if (stretch.begin != stretch.end && keeps_removed(stretch, behavior)) {
      out.push_back(
          {piece.text.substr(stretch.begin, stretch.end - stretch.begin),
           piece.at_start && stretch.begin == 0});
    }
  }
}

// Every code point of the class is a match of its own.
std::vector<Stretch> cut_at_class(
    std::string_view text,
    bool (*matches)(char32_t)) {
  std::vector<Stretch> out;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (!matches(unicode::next(text, at))) {
      continue;
    }
    if (done != begin) {
      out.push_back({done, begin, false});
    }
    out.push_back({begin, at, true});
    done = at;
  }
  if (done != text.size()) {
    out.push_back({done, text.size(), false});
  }
  return out;
}

// Runs of word characters, and runs of what is neither word nor space.
void split_whitespace(const Piece& piece, Pieces& out) {
  const auto kind = [](char32_t c) {
    return unicode::is_word(c) ? 1 : unicode::is_space(c) ? 0 : 2;
  };
  std::vector<Stretch> runs;
  int last = -1;
  for (size_t at = 0; at < piece.text.size();) {
    const size_t begin = at;
    const int now = kind(unicode::next(piece.text, at));
    if (now == last) {
      runs.back().end = at;
    } else {
      runs.push_back({begin, at, now == 0});
    }
    last = now;
  }
  emit(piece, runs, Behavior::kRemoved, out);
}

Behavior behavior_of(const Part& part) {
  static const std::map<std::string, Behavior> kNames = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  const auto found = kNames.find(part.text("behavior", "Isolated"));
  if (found == kNames.end()) {
    part.fail(
        "must have a behavior of Removed, Isolated, MergedWithPrevious, "
        "MergedWithNext or Contiguous.");
  }
  return found->second;
}

Step split(const Part& part) {
  return [pattern = Pattern(part.at("pattern")),
          behavior = behavior_of(part),
          invert = part.flag("invert")](Piece piece, Pieces& out) {
    auto stretches = pattern.cut(piece.text);
    for (auto& stretch : stretches) {
      stretch.matched = stretch.matched != invert;
    }
    emit(piece, stretches, behavior, out);
  };
}

Step by_class(bool (*matches)(char32_t), Behavior behavior) {
  return [=](Piece piece, Pieces& out) {
    emit(piece, cut_at_class(piece.text, matches), behavior, out);
  };
}

Step byte_level(const Part& part) {
  std::shared_ptr<const Regex> regex;
  if (part.flag("use_regex", true)) {
    regex = std::make_shared<Regex>(kGpt2Pattern);
  }
  return [regex, prefix = part.flag("add_prefix_space")](
             Piece piece, Pieces& out) {
    if (prefix && piece.text.front() != ' ') {
      piece.text.insert(0, 1, ' ');
    }
    const size_t first = out.size();
    if (regex) {
      emit(piece, regex->cut(piece.text), Behavior::kIsolated, out);
    } else {
      out.push_back(std::move(piece));
    }
    for (size_t i = first; i < out.size(); ++i) {
      out[i].text = to_byte_alphabet(out[i].text);
    }
  };
}

Step metaspace(const Part& part) {
  const std::string mark = part.text("replacement");
  const std::string scheme = part.text("prepend_scheme", "always");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    part.fail("must have a prepend_scheme of always, first or never.");
  }
  if (!part.flag("add_prefix_space", true) && scheme != "never") {
    part.fail("must have a prepend_scheme that agrees with add_prefix_space.");
  }
  if (mark.empty()) {
    part.fail("must have a replacement of one character.");
  }
  return
      [mark, scheme, cut = part.flag("split", true)](Piece piece, Pieces& out) {
        std::string text;
        for (const char byte : piece.text) {
          if (byte == ' ') {
            text += mark;
          } else {
            text += byte;
          }
        }
        const bool wanted =
            scheme == "always" || (scheme == "first" && piece.at_start);
        if (wanted && text.compare(0, mark.size(), mark) != 0) {
          text.insert(0, mark);
        }
        piece.text = std::move(text);
        if (cut) {
          emit(
              piece,
              cut_at_literal(piece.text, mark),
              Behavior::kMergedWithNext,
              out);
        } else {
          out.push_back(std::move(piece));
        }
      };
}

Step step_of(const std::string& type, const Part& part) {
  if (type == "ByteLevel") {
    return byte_level(part);
  }
  if (type == "Split") {
    return split(part);
  }
  if (type == "Metaspace") {
    return metaspace(part);
  }
  if (type == "Digits") {
    return by_class(
        unicode::is_numeric,
        part.flag("individual_digits") ? Behavior::kIsolated
                                       : Behavior::kContiguous);
  }
  if (type == "Punctuation") {
    return by_class(unicode::is_punctuation, behavior_of(part));
  }
  if (type == "WhitespaceSplit") {
    return by_class(unicode::is_space, Behavior::kRemoved);
  }
  if (type == "Whitespace") {
    return split_whitespace;
  }
  part.fail(
      "is not supported; pre-tokenizers that are: ByteLevel, Split, Digits, "
      "Metaspace, Punctuation, Whitespace, WhitespaceSplit, Sequence.");
}

} // namespace

std::vector<Stretch> merge(
    const std::vector<Stretch>& stretches,
    Behavior behavior) {
  std::vector<Stretch> out;
  const bool backwards = behavior == Behavior::kMergedWithNext;
  bool previous = false;
  for (size_t i = 0; i < stretches.size(); ++i) {
    const auto& now = stretches[backwards ? stretches.size() - 1 - i : i];
    const bool joins = behavior == Behavior::kContiguous
        ? now.matched == previous
        : (behavior == Behavior::kMergedWithPrevious || backwards) &&
            now.matched && !previous;
    if (joins && !out.empty()) {
      out.back().begin = std::min(out.back().begin, now.begin);
      out.back().end = std::max(out.back().end, now.end);
    } else {
      out.push_back(now);
    }
    previous = now.matched;
  }
  if (backwards) {
    std::reverse(out.begin(), out.end());
  }
  return out;
}

PreTokenizer::PreTokenizer(const Part& part) {
  for (const auto& [type, step] : flatten(part, "pretokenizers")) {
    steps_.push_back(step_of(type, step));
  }
}

std::vector<Piece> PreTokenizer::apply(Piece piece) const {
  Pieces pieces;
  if (!piece.text.empty()) {
    pieces.push_back(std::move(piece));
  }
  for (const auto& step : steps_) {
    Pieces next;
    next.reserve(pieces.size());
    for (auto& one : pieces) {
      step(std::move(one), next);
    }
    pieces = std::move(next);
  }
  return pieces;
}

} // namespace zmlx
