// SPDX-License-Identifier: MIT
#include "zmlx/measure/prompts.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/generate.h"

namespace zmlx::measure {
namespace {

constexpr int kRandomLengths[] = {8, 16, 32, 48, 64};

void check(const Model& model, const Prompt& prompt) {
  if (prompt.tokens.empty()) {
    invalid("validate", "a prompt must have at least one token, got none.");
  }
  const auto length = static_cast<int>(prompt.tokens.size());
  const int longest = model.info.max_positions;
  if (longest > 0 && length >= longest) {
    invalid(
        "validate",
        "a prompt must be shorter than the context of ",
        longest,
        " tokens, got ",
        length,
        '.');
  }
  for (int token : prompt.tokens) {
    if (token < 0 || token >= model.info.vocab_size) {
      invalid(
          "validate",
          "token ids must be in 0..",
          model.info.vocab_size - 1,
          ", got ",
          token,
          '.');
    }
  }
}

} // namespace

const std::vector<std::string>& default_prompts() {
  static const std::vector<std::string> prompts = {
      "Explain the difference between TCP and UDP, and say when each of them "
      "is the better choice.",
      "ROMEO:\n",
      "In the beginning",
      "Fellow citizens, when I look back on the year that lies behind us, I "
      "see much that we have done together, and much that is left to do. Our "
      "fields have borne well, our ships come home, and we are at peace with "
      "all nations. Yet there are three questions that I must lay before you "
      "today. The first is",
      "Write a Python function that returns the n-th Fibonacci number.\n"
      "def fibonacci(n):\n"};
  return prompts;
}

std::vector<int> random_tokens(int count, int vocab_size, uint64_t seed) {
  std::vector<int> tokens(static_cast<size_t>(count));
  uint64_t state = seed;
  for (int& token : tokens) {
    // SplitMix64, https://prng.di.unimi.it/splitmix64.c
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    token =
        static_cast<int>((z ^ (z >> 31)) % static_cast<uint64_t>(vocab_size));
  }
  return tokens;
}

std::vector<Prompt> choose_prompts(
    const Model& model,
    const std::vector<std::string>& texts,
    const std::vector<std::vector<int>>& token_prompts,
    bool raw) {
  std::vector<Prompt> prompts;
  const bool none_given = texts.empty() && token_prompts.empty();
  const bool use_defaults = none_given && model.tokenizer != nullptr;
  for (const auto& text : use_defaults ? default_prompts() : texts) {
    prompts.push_back({text, encode_prompt(model, text, raw)});
  }
  for (const auto& tokens : token_prompts) {
    prompts.push_back({"", tokens});
  }
  if (prompts.empty()) {
    const int longest = model.info.max_positions;
    for (int length : kRandomLengths) {
      if (longest > 0) {
        length = std::max(1, std::min(length, longest / 2));
      }
      prompts.push_back(
          {"", random_tokens(length, model.info.vocab_size, prompts.size())});
    }
  }
  for (const auto& prompt : prompts) {
    check(model, prompt);
  }
  return prompts;
}

} // namespace zmlx::measure
