// SPDX-License-Identifier: MIT
#include "zmlx/runtime/compiler_message.h"

#include <cstdlib>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/dialect/kernel_text.h"

namespace zmlx {
namespace {

// "body:3" for a line that starts with or names that place; else "".
std::string place_in(const std::string& line) {
  for (const char* file : {"body:", "header:"}) {
    size_t at = line.find(file);
    while (at != std::string::npos) {
      const size_t digits = at + std::string(file).size();
      const bool starts = at == 0 || line[at - 1] == ' ';
      if (starts && line[digits] >= '0' && line[digits] <= '9') {
        const long number = std::strtol(line.c_str() + digits, nullptr, 10);
        return concat(
            file,
            number > dialect::kHeaderLine ? number - dialect::kHeaderLine
                                          : number);
      }
      at = line.find(file, digits);
    }
  }
  return "";
}

} // namespace

std::string first_error(const std::string& output) {
  const auto lines = split(output, '\n');
  std::string last; // line that is not empty
  std::string before; // the last place that was named on the way
  for (size_t i = 0; i < lines.size(); ++i) {
    last = lines[i].empty() ? last : lines[i];
    size_t at = lines[i].find("error: ");
    if (at == std::string::npos) {
      const std::string place = place_in(lines[i]);
      before = place.empty() ? before : place;
      continue;
    }
    std::string place = place_in(lines[i]);
    // An error inside the prelude: the author's line calls it.
    place = place.empty() ? before : place;
    for (size_t k = i + 1; place.empty() && k < lines.size(); ++k) {
      place = place_in(lines[k]);
    }
    const std::string message =
        lines[i].substr(at + std::string("error: ").size());
    return place.empty() ? concat(": ", message, '.')
                         : concat(" at ", place, ": ", message, '.');
  }
  return concat(
      ": ", last.empty() ? std::string("it printed nothing") : last, '.');
}

} // namespace zmlx
