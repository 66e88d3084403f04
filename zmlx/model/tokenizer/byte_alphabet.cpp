// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {
namespace {

constexpr size_t kAlphabetEnd = 0x100 + 68; // 68 bytes are not visible

struct Alphabet {
  std::array<std::string, 256> letters;
  std::array<int16_t, kAlphabetEnd> bytes;

  // Visible bytes of Latin-1 stand for themselves, the others for U+0100 on.
  Alphabet() {
    bytes.fill(-1);
    char32_t spare = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool visible = (byte >= 0x21 && byte <= 0x7E) ||
          (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const char32_t letter = visible ? static_cast<char32_t>(byte) : spare++;
      unicode::append(letters[static_cast<size_t>(byte)], letter);
      bytes[letter] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet kAlphabet;
  return kAlphabet;
}

} // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) {
    out += alphabet().letters[static_cast<unsigned char>(byte)];
  }
  return out;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t letter = unicode::next(text, at);
    if (letter >= kAlphabetEnd || alphabet().bytes[letter] < 0) {
      return std::nullopt;
    }
    out += static_cast<char>(alphabet().bytes[letter]);
  }
  return out;
}

} // namespace zmlx
