// SPDX-License-Identifier: MIT
// The pre-tokenizer of a tokenizer.json: a text cut into words.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/model/tokenizer/part.h"

namespace zmlx {

/// A part of the text on its way to the model; never empty.
struct Piece {
  std::string text;
  bool at_start; // begins where the whole text begins
};

/// What becomes of the matches of a Split.
enum class Behavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

/// Turns a text and its stretches into pieces. Matches that follow one another
/// merge with none, as in Hugging Face's tokenizers.
std::vector<Stretch> merge(
    const std::vector<Stretch>& stretches,
    Behavior behavior);

/// ByteLevel, Split, Digits, Metaspace, Punctuation, Whitespace,
/// WhitespaceSplit and Sequences of them.
class PreTokenizer {
 public:
  using Step = std::function<void(Piece, std::vector<Piece>&)>;

  PreTokenizer() = default; // leaves the text in one piece
  /// Throws FileError for any other type.
  explicit PreTokenizer(const Part& part);

  std::vector<Piece> apply(Piece piece) const;

 private:
  std::vector<Step> steps_;
};

} // namespace zmlx
