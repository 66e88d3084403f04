// SPDX-License-Identifier: MIT
// ChatML: <|im_start|>role, newline, content, <|im_end|>, newline.
#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/chat_family.h"

namespace zmlx {
namespace {

constexpr std::string_view kThinkEnd = "</think>";

// Which of the assistant's past turns lose their thoughts.
enum class Thoughts {
  kKept,
  kQwen3, // before the last question; a last turn gets a think block
  kQwq, // all but the last message
  kLfmQuestion, // before the last question
  kLfmLast, // all but the assistant's last
};

struct ChatMl {
  std::string bos;
  std::string default_system;
  bool skips_empty_system = false;
  Thoughts thoughts = Thoughts::kKept;
  bool opens_thought = false; // generation begins in a think block
  bool thinking_switch = false;
};

std::string_view after_thought(std::string_view content) {
  const size_t at = content.rfind(kThinkEnd);
  return at == content.npos ? content : content.substr(at + kThinkEnd.size());
}

// What stands between <think> and the first </think>.
std::string_view thought_of(std::string_view content) {
  const size_t end = content.find(kThinkEnd);
  if (end == content.npos) {
    return "";
  }
  std::string_view thought = without_trailing_newlines(content.substr(0, end));
  const size_t begin = thought.rfind("<think>");
  if (begin != thought.npos) {
    thought.remove_prefix(begin + 7);
  }
  return without_leading_newlines(thought);
}

class ChatMlFamily : public ChatFamily {
 public:
  ChatMlFamily(std::string name, ChatMl style)
      : ChatFamily(std::move(name)), style_(std::move(style)) {}

  void write(
      std::span<const ChatMessage> messages,
      const ChatOptions& options,
      SpanWriter& out) const override {
    out.own(style_.bos);
    size_t first = 0;
    if (messages[0].role == "system") {
      first = 1;
      if (!style_.skips_empty_system || !messages[0].content.empty()) {
        turn("system", messages[0].content, out);
      }
    } else if (!style_.default_system.empty()) {
      out.own("<|im_start|>system\n" + style_.default_system + "<|im_end|>\n");
    }
    for (size_t i = first; i < messages.size(); ++i) {
      if (messages[i].role == "assistant") {
        assistant(messages, i, out);
      } else {
        turn(messages[i].role, messages[i].content, out);
      }
    }
    if (options.add_generation_prompt) {
      out.own("<|im_start|>assistant\n");
      if (style_.opens_thought) {
        out.own("<think>\n");
      } else if (style_.thinking_switch && !options.enable_thinking) {
        out.own("<think>\n\n</think>\n\n");
      }
    }
  }

 private:
  static void
  turn(std::string_view role, std::string_view content, SpanWriter& out) {
    out.own(concat("<|im_start|>", role, "\n"));
    out.message(content);
    out.own("<|im_end|>\n");
  }

  // The last message of a role, or -1; Qwen3 passes over tools' answers.
  ptrdiff_t last(std::span<const ChatMessage> messages, std::string_view role)
      const {
    for (size_t i = messages.size(); i-- > 0;) {
      const auto& content = messages[i].content;
      const bool from_tool = style_.thoughts == Thoughts::kQwen3 &&
          content.rfind("<tool_response>", 0) == 0 && content.size() >= 16 &&
          content.compare(content.size() - 16, 16, "</tool_response>") == 0;
      if (messages[i].role == role && !from_tool) {
        return static_cast<ptrdiff_t>(i);
      }
    }
    return -1;
  }

  void assistant(
      std::span<const ChatMessage> messages,
      size_t at,
      SpanWriter& out) const {
    const std::string_view content = messages[at].content;
    const auto index = static_cast<ptrdiff_t>(at);
    const bool is_last = at + 1 == messages.size();
    const bool has_thought = content.find(kThinkEnd) != content.npos;
    switch (style_.thoughts) {
      case Thoughts::kQwen3:
        return qwen3(messages, at, out);
      case Thoughts::kQwq:
        return turn(
            "assistant",
            is_last ? content
                    : without_leading_newlines(after_thought(content)),
            out);
      case Thoughts::kLfmQuestion:
      case Thoughts::kLfmLast: {
        const bool past = style_.thoughts == Thoughts::kLfmQuestion
            ? index <= last(messages, "user")
            : index != last(messages, "assistant");
        return turn(
            "assistant",
            past && has_thought ? trim(after_thought(content)) : content,
            out);
      }
      case Thoughts::kKept:
        return turn("assistant", content, out);
    }
  }

  void qwen3(std::span<const ChatMessage> messages, size_t at, SpanWriter& out)
      const {
    const std::string_view content = messages[at].content;
    const std::string_view thought = thought_of(content);
    const std::string_view answer = content.find(kThinkEnd) == content.npos
        ? content
        : without_leading_newlines(after_thought(content));
    const ptrdiff_t question = last(messages, "user");
    const bool newer = question >= 0 && static_cast<ptrdiff_t>(at) > question;
    if (!newer || (at + 1 < messages.size() && thought.empty())) {
      return turn("assistant", answer, out);
    }
    out.own("<|im_start|>assistant\n<think>\n");
    out.message(without_trailing_newlines(without_leading_newlines(thought)));
    out.own("\n</think>\n\n");
    out.message(without_leading_newlines(answer));
    out.own("<|im_end|>\n");
  }

  ChatMl style_;
};

// A system turn written whole in one string is the default one.
std::string default_system_of(const TemplateSource& source) {
  constexpr std::string_view kOpen = "<|im_start|>system\n";
  for (const auto& text : source.literals()) {
    const size_t end = text.find("<|im_end|>");
    if (text.rfind(kOpen, 0) == 0 && end != text.npos && end > kOpen.size()) {
      return text.substr(kOpen.size(), end - kOpen.size());
    }
  }
  return "";
}

std::optional<Thoughts> thoughts_of(const TemplateSource& source) {
  if (!source.has(kThinkEnd)) {
    return Thoughts::kKept;
  }
  if (source.has("reasoning_content") && source.has("last_query_index")) {
    return Thoughts::kQwen3;
  }
  if (source.has("last_user_index")) {
    return Thoughts::kLfmQuestion;
  }
  if (source.has("last_assistant_index")) {
    return Thoughts::kLfmLast;
  }
  if (source.has_code("ifnotloop.last") &&
      source.has_code(".split('</think>')[-1].lstrip('\\n')")) {
    return Thoughts::kQwq;
  }
  return std::nullopt;
}

} // namespace

std::unique_ptr<const ChatFamily> recognize_chatml(
    const TemplateSource& source) {
  constexpr std::string_view kMarkers[] = {
      "im_start",
      "im_end",
      "startoftext",
      "endoftext",
      "vision_start",
      "vision_end",
      "image_pad",
      "video_pad",
      "tool_list_start",
      "tool_list_end",
      "tool_call_start",
      "tool_call_end",
      "tool_response_start",
      "tool_response_end"};
  const auto thoughts = thoughts_of(source);
  const bool is_lfm = source.has("ns.system_prompt");
  const bool trims = source.has_code("|trim") || source.has(".strip()");
  const bool trims_thoughts =
      thoughts == Thoughts::kLfmQuestion || thoughts == Thoughts::kLfmLast;
  if (!source.has("<|im_start|>") || !source.has("add_generation_prompt") ||
      !source.only_markers(kMarkers) || !thoughts ||
      (trims && !trims_thoughts) || (source.has("strftime_now") && !is_lfm) ||
      (source.has("<tools>") && !source.has("if tools"))) {
    return nullptr;
  }
  ChatMl style;
  style.bos = source.bos;
  style.default_system = default_system_of(source);
  style.skips_empty_system = is_lfm;
  style.thoughts = *thoughts;
  style.opens_thought = source.literal(
      "<|im_start|>assistant\n<think>\n", "add_generation_prompt");
  style.thinking_switch = source.has("enable_thinking");
  const char* name = is_lfm                                        ? "lfm2"
      : thoughts == Thoughts::kQwen3 || thoughts == Thoughts::kQwq ? "qwen3"
      : !style.default_system.empty()                              ? "qwen2"
                                                                   : "chatml";
  return std::make_unique<ChatMlFamily>(name, std::move(style));
}

} // namespace zmlx
