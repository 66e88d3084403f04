// SPDX-License-Identifier: MIT
// The normaliser of a tokenizer.json: text to text, before it is cut.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "zmlx/model/tokenizer/part.h"

namespace zmlx {

/// NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip and Sequences of them.
class Normalizer {
 public:
  Normalizer() = default; // leaves text alone
  /// Throws FileError for any other type.
  explicit Normalizer(const Part& part);

  std::string apply(std::string text) const; // text: valid UTF-8

 private:
  std::vector<std::function<std::string(std::string)>> steps_;
};

} // namespace zmlx
