// SPDX-License-Identifier: MIT
// The prompts on which validate() runs when it is given none.
#pragma once

#include <string>
#include <vector>

#include "zmlx/model/model.h"

namespace zmlx::measure {

/// A prompt as text and as ids.
struct Prompt {
  std::string text; // "" when only ids were given
  std::vector<int> tokens;
};

/// Five texts of different kinds and lengths.
const std::vector<std::string>& default_prompts();

/// `count` ids in 0..vocab_size - 1, the same for the same seed everywhere.
std::vector<int> random_tokens(int count, int vocab_size, uint64_t seed);

/// The prompts to run: those given, encoded and checked against the vocabulary
/// and the context; else the default ones, or five of random_tokens() when the
/// model has no tokenizer. Throws std::invalid_argument.
std::vector<Prompt> choose_prompts(
    const Model& model,
    const std::vector<std::string>& texts,
    const std::vector<std::vector<int>>& token_prompts,
    bool raw);

} // namespace zmlx::measure
