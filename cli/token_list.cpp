// SPDX-License-Identifier: MIT
#include "cli/token_list.h"

#include <charconv>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"

namespace zmlx::cli {

std::vector<int> parse_list(
    const std::string& command,
    const std::string& option,
    const std::string& what,
    const std::string& text) {
  std::vector<int> numbers;
  for (const auto& word : split(text, ',')) {
    int number = -1;
    const char* end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data(), end, number);
    if (error != std::errc() || stop != end || number < 0) {
      invalid(
          command,
          option,
          " must be ",
          what,
          " such as 1,2,3, got '",
          word,
          "'.");
    }
    numbers.push_back(number);
  }
  if (numbers.empty()) {
    invalid(command, option, " must have at least one number, got none.");
  }
  return numbers;
}

} // namespace zmlx::cli
