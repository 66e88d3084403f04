// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/safetensors.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/checkpoint/header_reader.h"

namespace zmlx {
namespace {

// The format demands that the tensors fill the data part; so no byte of a file
// goes unchecked, and two tensors can share none.
void check_layout(
    SafetensorsHeader& header,
    uint64_t file_bytes,
    const std::string& origin) {
  auto& tensors = header.tensors;
  std::stable_sort(
      tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
        return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
      });
  uint64_t expected = header.data_begin;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].begin < expected) {
      bad_file(
          origin,
          "tensors must not share bytes, but ",
          shown_name(tensors[i - 1].name),
          " and ",
          shown_name(tensors[i].name),
          " overlap by ",
          expected - tensors[i].begin,
          ".");
    }
    if (tensors[i].begin > expected) {
      bad_file(
          origin,
          "tensors must follow one another without a hole, but ",
          tensors[i].begin - expected,
          " bytes before ",
          shown_name(tensors[i].name),
          " belong to none.");
    }
    expected = tensors[i].end;
  }
  if (expected != file_bytes) {
    bad_file(
        origin,
        "the data part must end with the last tensor, but ",
        file_bytes - expected,
        " more bytes follow.");
  }
}

} // namespace

SafetensorsHeader read_safetensors_header(
    std::string_view file,
    const std::string& origin) {
  if (file.size() < 8) {
    bad_file(
        origin,
        "must start with 8 bytes that give the header's length, got ",
        file.size(),
        " bytes in all.");
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) {
    length = length << 8 | static_cast<unsigned char>(file[i]);
  }
  if (length > kMaxHeaderBytes) {
    bad_file(
        origin,
        "header must have at most ",
        kMaxHeaderBytes,
        " bytes, got ",
        length,
        ".");
  }
  if (length > file.size() - 8) {
    bad_file(
        origin,
        "header of ",
        length,
        " bytes must lie within the file, got ",
        file.size(),
        " bytes in all. Try: download the file again.");
  }
  const std::string_view text = file.substr(8, length);
  if (text.empty() || text.front() != '{') {
    bad_file(
        origin,
        "header must start with '{', got ",
        text.empty() ? "nothing" : shown_name(text.substr(0, 1)),
        ".");
  }
  // The JSON reader would take a NUL for the end and skip what follows.
  if (text.find('\0') != std::string_view::npos) {
    bad_file(origin, "header is not valid JSON: it must hold no NUL byte.");
  }
  const uint64_t data_begin = 8 + length;
  HeaderReader reader(data_begin, file.size() - data_begin, origin);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  SafetensorsHeader header = reader.take();
  check_layout(header, file.size(), origin);
  return header;
}

std::string shown_name(std::string_view name) {
  size_t most = 80;
  while (most < name.size() && most > 0 && (name[most] & 0xc0) == 0x80) {
    --most; // cut no UTF-8 character
  }
  std::string out = "'";
  for (const char letter : name.substr(0, most)) {
    const bool control =
        static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f;
    out += control ? '?' : letter;
  }
  return out + (name.size() > most ? "...'" : "'");
}

} // namespace zmlx
