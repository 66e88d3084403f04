// SPDX-License-Identifier: MIT
// Feeds any text to the expression parser: it must take it, or throw
// std::invalid_argument, and what it takes must print, read back to a program
// that prints alike, and differentiate.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "zmlx/dialect/derivative.h"
#include "zmlx/dialect/parse.h"
#include "zmlx/dialect/print.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace zmlx::dialect;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> names = {"x", "y"};
  try {
    const Functions functions({"fuzz", text});
    if (!functions.text()->functions.empty()) {
      Graph graph;
      const std::vector<Graph::Id> args(
          functions.text()->functions.back().parameters.size(), graph.input(0));
      parse_call(graph, functions, args);
    }
  } catch (const std::invalid_argument&) {
  }
  FlatExpression flat;
  try {
    flat = parse_expression({"fuzz", text}, names);
  } catch (const std::invalid_argument&) {
    return 0;
  }
  const int inputs[] = {0, 1};
  if (flat.code.size() < 2000) {
    vjp_of(flat, inputs);
  }
  // Printing may nest deeper than the parser allows.
  try {
    const auto printed = print(flat, names);
    const auto again = parse_expression({"fuzz", printed}, names);
    if (print(again, names) != printed) {
      std::abort();
    }
  } catch (const std::invalid_argument&) {
    if (flat.code.size() < 50) {
      std::abort();
    }
  }
  return 0;
}
