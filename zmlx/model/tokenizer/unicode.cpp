// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/unicode.h"

#include <algorithm>
#include <vector>

#include <utf8proc.h>

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/unicode_tables.h"

namespace zmlx::unicode {
namespace {

using Byte = unsigned char;

enum class Sequence { kWhole, kBroken, kUnfinished };

struct Scan {
  size_t length;
  Sequence state;
};

// The bounds of the second byte are narrower after E0, ED, F0 and F4: no
// overlong forms, no surrogates, nothing above U+10FFFF (Unicode 3.9, D92).
Scan scan(std::string_view bytes, size_t at) {
  const Byte lead = bytes[at];
  if (lead < 0x80) {
    return {1, Sequence::kWhole};
  }
  if (lead < 0xC2 || lead > 0xF4) {
    return {1, Sequence::kBroken};
  }
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i) {
    if (at + i == bytes.size()) {
      return {i, Sequence::kUnfinished};
    }
    Byte low = 0x80, high = 0xBF;
    if (i == 1) {
      low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : low;
      high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : high;
    }
    const Byte byte = bytes[at + i];
    if (byte < low || byte > high) {
      return {i, Sequence::kBroken};
    }
  }
  return {length, Sequence::kWhole};
}

template <class Row>
const Row* find_row(std::span<const Row> rows, char32_t c) {
  const auto after = std::upper_bound(
      rows.begin(), rows.end(), c, [](char32_t value, const Row& row) {
        return value < row.first;
      });
  if (after == rows.begin() || std::prev(after)->last < c) {
    return nullptr;
  }
  return &*std::prev(after);
}

char32_t stand_in(char32_t c) {
  if (c < 0x800) {
    return c;
  }
  const StandIn* row = find_row(stand_ins(), c);
  return row ? row->meaning : c;
}

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(stand_in(c)));
}

bool between(int value, int first, int last) {
  return first <= value && value <= last;
}

void decompose(char32_t c, Form form, std::vector<utf8proc_int32_t>& out) {
  int options = UTF8PROC_DECOMPOSE;
  if (form == Form::kNfkc || form == Form::kNfkd) {
    options |= UTF8PROC_COMPAT;
  }
  utf8proc_int32_t parts[32]; // the longest decomposition, U+FDFA, has 18
  int boundary = 0;
  const auto count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(c),
      parts,
      std::size(parts),
      static_cast<utf8proc_option_t>(options),
      &boundary);
  if (count < 0 || count > static_cast<utf8proc_ssize_t>(std::size(parts))) {
    throw std::logic_error("utf8proc decomposed a code point too far");
  }
  out.insert(out.end(), parts, parts + count);
}

int combining_class(utf8proc_int32_t c) {
  return utf8proc_get_property(c)->combining_class;
}

// utf8proc sorts marks by insertion, quadratic in a long run; this does not.
void sort_marks(std::vector<utf8proc_int32_t>& text) {
  auto begin = text.begin();
  while (begin != text.end()) {
    begin = std::find_if(
        begin, text.end(), [](auto c) { return combining_class(c) != 0; });
    const auto end = std::find_if(
        begin, text.end(), [](auto c) { return combining_class(c) == 0; });
    std::stable_sort(begin, end, [](auto a, auto b) {
      return combining_class(a) < combining_class(b);
    });
    begin = end;
  }
}

// Normalises what stands between two code points that are left alone.
void flush(std::vector<utf8proc_int32_t>& piece, Form form, std::string& out) {
  sort_marks(piece);
  if (form == Form::kNfc || form == Form::kNfkc) {
    const auto count = utf8proc_normalize_utf32(
        piece.data(),
        static_cast<utf8proc_ssize_t>(piece.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (count < 0) {
      throw std::logic_error(utf8proc_errmsg(count));
    }
    piece.resize(static_cast<size_t>(count));
  }
  for (const auto c : piece) {
    append(out, static_cast<char32_t>(c));
  }
  piece.clear();
}

} // namespace

char32_t next(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) -> char32_t {
    return static_cast<Byte>(text[at + i]);
  };
  const char32_t lead = byte(0);
  if (lead < 0x80) {
    ++at;
    return lead;
  }
  if (lead < 0xE0) {
    const char32_t c = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    at += 2;
    return c;
  }
  if (lead < 0xF0) {
    const char32_t c =
        (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    at += 3;
    return c;
  }
  const char32_t c = (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 |
      (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  at += 4;
  return c;
}

size_t previous(std::string_view text, size_t at) {
  do {
    --at;
  } while ((static_cast<Byte>(text[at]) & 0xC0) == 0x80);
  return at;
}

void append(std::string& out, char32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto count =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const Scan step = scan(bytes, at);
    out += step.state == Sequence::kWhole ? bytes.substr(at, step.length)
                                          : kReplacement;
    at += step.length;
  }
  return out;
}

size_t unfinished_tail(std::string_view bytes) {
  for (size_t length = std::min<size_t>(3, bytes.size()); length > 0;
       --length) {
    const Scan step = scan(bytes, bytes.size() - length);
    if (step.length == length && step.state == Sequence::kUnfinished) {
      return length;
    }
  }
  return 0;
}

bool is_valid_utf8(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const Scan step = scan(bytes, at);
    if (step.state != Sequence::kWhole) {
      return false;
    }
    at += step.length;
  }
  return true;
}

bool is_space(char32_t c) {
  return between(c, 0x09, 0x0D) || c == ' ' || c == 0x85 || c == 0xA0 ||
      c == 0x1680 || between(c, 0x2000, 0x200A) || c == 0x2028 || c == 0x2029 ||
      c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  return between(category(c), UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO) ||
      // Unicode 17, which Rust's standard library has
      between(c, 0x11DE0, 0x11DE9) || between(c, 0x16FF4, 0x16FF6);
}

bool is_word(char32_t c) {
  const auto kind = category(c);
  return between(kind, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_NL) ||
      kind == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D ||
      // enclosed letters: category So, yet Alphabetic
      between(c, 0x24B6, 0x24E9) || between(c, 0x1F130, 0x1F149) ||
      between(c, 0x1F150, 0x1F169) || between(c, 0x1F170, 0x1F189);
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) {
    return between(c, '!', '/') || between(c, ':', '@') ||
        between(c, '[', '`') || between(c, '{', '~');
  }
  if (c == 0x166D || c == 0x111C9) { // became symbols later
    return true;
  }
  return between(category(c), UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO) &&
      !find_row(young_punctuation(), c);
}

std::string with_stand_ins(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next(text, at);
    const char32_t meaning = stand_in(c);
    if (meaning == c) {
      out += text.substr(begin, at - begin);
    } else {
      append(out, meaning);
    }
  }
  return out;
}

std::string normalize(std::string_view text, Form form) {
  const bool ascii = std::all_of(
      text.begin(), text.end(), [](Byte byte) { return byte < 0x80; });
  if (ascii) {
    return std::string(text);
  }
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> piece;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next(text, at);
    if (find_row(inert_in_normalization(), c)) {
      flush(piece, form, out);
      append(out, c);
    } else {
      decompose(c, form, piece);
    }
  }
  flush(piece, form, out);
  return out;
}

} // namespace zmlx::unicode
