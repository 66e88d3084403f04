// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/chat_family.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {
namespace {

// Python's str.isspace() has the four separators of ASCII too.
bool is_python_space(char32_t c) {
  return unicode::is_space(c) || (c >= 0x1C && c <= 0x1F);
}

// A string literal at text[at], a quote; moves `at` past it.
std::string read_literal(std::string_view text, size_t& at) {
  const char quote = text[at++];
  std::string out;
  for (; at < text.size() && text[at] != quote; ++at) {
    if (text[at] == '\\' && at + 1 < text.size()) {
      const char escaped = text[++at];
      out += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped;
    } else {
      out += text[at];
    }
  }
  at = std::min(at + 1, text.size());
  return out;
}

std::string without_spaces(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"') {
      out += '\'';
    } else if (c != ' ' && c != '\n' && c != '\t' && c != '\r') {
      out += c;
    }
  }
  return out;
}

} // namespace

TemplateSource::TemplateSource(
    std::string text,
    std::string bos_token,
    std::string eos_token)
    : text_(std::move(text)), code_(without_spaces(text_)) {
  for (size_t at = 0; at + 1 < text_.size();) {
    const std::string_view open = std::string_view(text_).substr(at, 2);
    if (open == "{#") {
      const size_t end = text_.find("#}", at);
      at = end == text_.npos ? text_.size() : end + 2;
    } else if (open == "{{" || open == "{%") {
      const std::string_view close = open == "{{" ? "}}" : "%}";
      at += 2;
      while (at < text_.size() && text_.compare(at, 2, close) != 0) {
        if (text_[at] == '\'' || text_[at] == '"') {
          literal_places_.push_back(at);
          literals_.push_back(read_literal(text_, at));
        } else {
          ++at;
        }
      }
    } else {
      ++at;
    }
  }
  bos = has("bos_token") ? bos_token : "";
  eos = has("eos_token") ? eos_token : "";
}

const std::string* TemplateSource::literal(
    std::string_view prefix,
    std::string_view mark) const {
  const size_t begin = mark.empty() ? 0 : text_.rfind(mark);
  for (size_t i = 0; i < literals_.size(); ++i) {
    if (literal_places_[i] >= begin &&
        literals_[i].compare(0, prefix.size(), prefix) == 0) {
      return &literals_[i];
    }
  }
  return nullptr;
}

const std::string* TemplateSource::value_of(std::string_view name) const {
  const std::string head = concat(name, " = ");
  const size_t at = text_.find(head);
  for (size_t i = 0; at != text_.npos && i < literals_.size(); ++i) {
    if (literal_places_[i] == at + head.size()) {
      return &literals_[i];
    }
  }
  return nullptr;
}

bool TemplateSource::only_markers(
    std::span<const std::string_view> names) const {
  for (size_t at = text_.find("<|"); at != text_.npos;
       at = text_.find("<|", at + 2)) {
    const size_t end = text_.find("|>", at);
    const auto name = std::string_view(text_).substr(
        at + 2, end == text_.npos ? 0 : end - at - 2);
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      return false;
    }
  }
  return true;
}

void SpanWriter::own(std::string_view text) {
  add(text, true);
}

void SpanWriter::message(std::string_view text) {
  add(text, false);
}

void SpanWriter::add(std::string_view text, bool special_tokens) {
  if (text.empty()) {
    return;
  }
  if (spans_.empty() || spans_.back().special_tokens != special_tokens) {
    spans_.push_back({"", special_tokens});
  }
  spans_.back().text += text;
}

// text may be a user's bytes, not valid UTF-8: only whole characters count.
std::string_view trim(std::string_view text) {
  size_t begin = 0, end = text.size();
  if (!unicode::is_valid_utf8(text)) {
    const auto ascii_space = [](char c) {
      return static_cast<unsigned char>(c) < 0x80 &&
          is_python_space(static_cast<unsigned char>(c));
    };
    while (begin < end && ascii_space(text[begin])) {
      ++begin;
    }
    while (end > begin && ascii_space(text[end - 1])) {
      --end;
    }
    return text.substr(begin, end - begin);
  }
  while (begin < end) {
    size_t next = begin;
    if (!is_python_space(unicode::next(text, next))) {
      break;
    }
    begin = next;
  }
  while (end > begin) {
    const size_t last = unicode::previous(text, end);
    size_t next = last;
    if (!is_python_space(unicode::next(text, next))) {
      break;
    }
    end = last;
  }
  return text.substr(begin, end - begin);
}

std::string_view without_leading_newlines(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of('\n'), text.size()));
}

std::string_view without_trailing_newlines(std::string_view text) {
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

std::string format_day(const std::string& day, const char* format) {
  std::tm date{};
  if (day.empty()) {
    const std::time_t now = std::time(nullptr);
    localtime_r(&now, &date);
  } else {
    const char* const end = strptime(day.c_str(), "%Y-%m-%d", &date);
    if (day.size() != 10 || !end || *end != '\0') {
      invalid("chat_template", "date must be YYYY-MM-DD, got '", day, "'.");
    }
  }
  char out[64];
  return std::string(out, std::strftime(out, sizeof out, format, &date));
}

void check_alternation(std::span<const ChatMessage> messages) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const char* const expected = i % 2 == 0 ? "user" : "assistant";
    if (messages[i].role != expected) {
      invalid(
          "chat_template",
          "user and assistant must take turns in this template: message ",
          i,
          " must be of ",
          expected,
          ", got ",
          messages[i].role,
          ".");
    }
  }
}

} // namespace zmlx
