// SPDX-License-Identifier: MIT
// What the families of chat templates share: marks, spans, string helpers.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/model/tokenizer/chat_template.h"

namespace zmlx {

/// The text of a Jinja template, and what families are recognised by.
class TemplateSource {
 public:
  TemplateSource(std::string text, std::string bos, std::string eos);

  bool has(std::string_view mark) const {
    return text_.find(mark) != text_.npos;
  }
  /// As has(), blind to spaces and to the kind of quotes in the template:
  /// mark: no spaces, single quotes.
  bool has_code(std::string_view mark) const {
    return code_.find(mark) != code_.npos;
  }
  const std::string& code() const {
    return code_;
  }
  /// The strings in quotes, escapes resolved, in order.
  const std::vector<std::string>& literals() const {
    return literals_;
  }
  /// The first string literal that begins with a prefix, or null; with a mark,
  /// only those behind its last place count.
  const std::string* literal(
      std::string_view prefix,
      std::string_view mark = "") const;
  /// The string literal that follows `name = ` in the template, or null.
  const std::string* value_of(std::string_view name) const;
  /// Whether every marker <|name|> of the template is one of these names.
  bool only_markers(std::span<const std::string_view> names) const;

  std::string bos, eos; // "" when the template does not write them

 private:
  std::string text_, code_;
  std::vector<std::string> literals_;
  std::vector<size_t> literal_places_; // where each begins in text_
};

/// Gathers the spans of a prompt.
class SpanWriter {
 public:
  void own(std::string_view text); // of the template
  void message(std::string_view text); // of a message
  std::vector<TextSpan> take() {
    return std::move(spans_);
  }

 private:
  void add(std::string_view text, bool special_tokens);
  std::vector<TextSpan> spans_;
};

/// One recognised template.
class ChatFamily {
 public:
  explicit ChatFamily(std::string name) : name_(std::move(name)) {}
  virtual ~ChatFamily() = default;
  /// messages: at least one, roles system, user and assistant only.
  virtual void write(
      std::span<const ChatMessage> messages,
      const ChatOptions& options,
      SpanWriter& out) const = 0;
  const std::string& name() const {
    return name_;
  }

 private:
  std::string name_;
};

/// Each gives null for a template that is not its own, or not quite.
using Recognizer =
    std::unique_ptr<const ChatFamily> (*)(const TemplateSource& source);
std::unique_ptr<const ChatFamily> recognize_chatml(const TemplateSource&);
std::unique_ptr<const ChatFamily> recognize_llama3(const TemplateSource&);
std::unique_ptr<const ChatFamily> recognize_gpt_oss(const TemplateSource&);
std::unique_ptr<const ChatFamily> recognize_mistral(const TemplateSource&);
std::unique_ptr<const ChatFamily> recognize_gemma(const TemplateSource&);

/// Python's str.strip().
std::string_view trim(std::string_view text);
/// Python's str.lstrip("\n") and str.rstrip("\n").
std::string_view without_leading_newlines(std::string_view text);
std::string_view without_trailing_newlines(std::string_view text);

/// A day YYYY-MM-DD ("" is today) as strftime writes it. Throws
/// std::invalid_argument.
std::string format_day(const std::string& day, const char* format);

/// Throws std::invalid_argument unless user and assistant take turns, user
/// first.
void check_alternation(std::span<const ChatMessage> messages);

} // namespace zmlx
