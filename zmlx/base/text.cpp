// SPDX-License-Identifier: MIT
#include "zmlx/base/text.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace zmlx {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  if (text.empty()) {
    return parts;
  }
  size_t begin = 0;
  for (;;) {
    const size_t end = text.find(separator, begin);
    parts.emplace_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) {
      return parts;
    }
    begin = end + 1;
  }
}

std::string join(
    const std::vector<std::string>& parts,
    std::string_view separator) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    out += i == 0 ? "" : separator;
    out += parts[i];
  }
  return out;
}

namespace {

// Letters put in, left out or replaced, and neighbours that changed places.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(
      a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min(
          {d[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
           d[i - 1][j] + 1,
           d[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

} // namespace

std::string nearest(
    std::string_view word,
    const std::vector<std::string>& candidates) {
  // Of three letters with two others, hardly anything is left.
  const size_t limit = word.size() < 4 ? 1 : word.size() / 3 + 1;
  std::string best;
  std::pair<size_t, bool> least{limit, true};
  for (const auto& candidate : candidates) {
    const std::pair distance(
        edit_distance(word, candidate), candidate.size() != word.size());
    if (distance < least || (distance == least && best.empty())) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

std::string did_you_mean(
    std::string_view word,
    const std::vector<std::string>& candidates) {
  const std::string best = nearest(word, candidates);
  return best.empty() ? "" : " Did you mean '" + best + "'?";
}

std::string human_bytes(uint64_t bytes) {
  static const char* const kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  char out[32];
  std::snprintf(
      out, sizeof out, unit == 0 ? "%.0f %s" : "%.2f %s", value, kUnits[unit]);
  return out;
}

} // namespace zmlx
