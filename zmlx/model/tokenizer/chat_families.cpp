// SPDX-License-Identifier: MIT
// Llama 3, GPT-OSS, Mistral and Gemma.
#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/chat_family.h"

namespace zmlx {
namespace {

using Messages = std::span<const ChatMessage>;

class Llama3 : public ChatFamily {
 public:
  // dated: of 3.1 and later, whose system turn tells the day.
  Llama3(const TemplateSource& source, bool dated)
      : ChatFamily(dated ? "llama3.1" : "llama3"),
        bos_(source.bos),
        dated_(dated),
        knows_today_(source.has("strftime_now")),
        trims_(source.has_code("|trim")) {
    if (const auto* day = source.value_of("date_string")) {
      day_ = *day;
    }
    if (const auto* line = source.literal("Cutting Knowledge Date: ")) {
      knowledge_ = *line;
    }
  }

  void write(Messages messages, const ChatOptions& options, SpanWriter& out)
      const override {
    out.own(bos_);
    if (dated_) {
      header("system", out);
      out.own(concat(knowledge_, "Today Date: ", day(options), "\n\n"));
      if (messages[0].role == "system") {
        out.message(trim(messages[0].content));
        messages = messages.subspan(1);
      }
      out.own("<|eot_id|>");
    }
    for (const auto& message : messages) {
      header(message.role, out);
      out.message(trims_ ? trim(message.content) : message.content);
      out.own("<|eot_id|>");
    }
    if (options.add_generation_prompt) {
      header("assistant", out);
    }
  }

 private:
  static void header(std::string_view role, SpanWriter& out) {
    out.own(concat("<|start_header_id|>", role, "<|end_header_id|>\n\n"));
  }

  std::string day(const ChatOptions& options) const {
    return knows_today_ || !options.date.empty()
        ? format_day(options.date, "%d %b %Y")
        : day_;
  }

  std::string bos_, day_, knowledge_;
  bool dated_, knows_today_, trims_;
};

class GptOss : public ChatFamily {
 public:
  explicit GptOss(const TemplateSource& source)
      : ChatFamily("gpt-oss"),
        identity_(*source.value_of("model_identity")),
        cutoff_(*source.literal("Knowledge cutoff: ")),
        effort_(*source.value_of("reasoning_effort")) {}

  void write(Messages messages, const ChatOptions& options, SpanWriter& out)
      const override {
    out.own(concat(
        "<|start|>system<|message|>",
        identity_,
        "\n",
        cutoff_,
        "Current date: ",
        format_day(options.date, "%Y-%m-%d"),
        "\n\nReasoning: ",
        effort_,
        "\n\n# Valid channels: analysis, commentary, final. Channel must be "
        "included for every message.<|end|>"));
    if (messages[0].role == "system") {
      if (!messages[0].content.empty()) {
        out.own("<|start|>developer<|message|># Instructions\n\n");
        out.message(messages[0].content);
        out.own("\n\n<|end|>");
      }
      messages = messages.subspan(1);
    }
    for (const auto& message : messages) {
      const bool ends =
          &message == &messages.back() && !options.add_generation_prompt;
      if (message.role == "user") {
        out.own("<|start|>user<|message|>");
        out.message(message.content);
        out.own("<|end|>");
      } else if (message.role == "assistant") {
        out.own("<|start|>assistant<|channel|>final<|message|>");
        out.message(message.content);
        out.own(ends ? "<|return|>" : "<|end|>");
      }
    }
    if (options.add_generation_prompt) {
      out.own("<|start|>assistant");
    }
  }

 private:
  std::string identity_, cutoff_, effort_;
};

class Mistral : public ChatFamily {
 public:
  enum class System { kRefused, kFirst, kLast };
  struct Style {
    std::string bos, eos, open, close, before_answer, after_answer;
    bool trims_answer = false;
    System system = System::kRefused;
  };

  explicit Mistral(Style style)
      : ChatFamily("mistral"), style_(std::move(style)) {}

  void write(Messages messages, const ChatOptions&, SpanWriter& out)
      const override {
    std::string_view system;
    bool has_system = false;
    if (messages[0].role == "system" && style_.system != System::kRefused) {
      has_system = true;
      system = messages[0].content;
      messages = messages.subspan(1);
    }
    check_alternation(messages);
    out.own(style_.bos);
    for (size_t i = 0; i < messages.size(); ++i) {
      const auto& message = messages[i];
      if (message.role == "assistant") {
        out.own(style_.before_answer);
        out.message(
            style_.trims_answer ? trim(message.content)
                                : std::string_view(message.content));
        out.own(style_.eos + style_.after_answer);
        continue;
      }
      const size_t place =
          style_.system == System::kFirst ? 0 : messages.size() - 1;
      out.own(style_.open);
      if (has_system && i == place) {
        out.message(concat(system, "\n\n"));
      }
      out.message(message.content);
      out.own(style_.close);
    }
  }

 private:
  Style style_;
};

class Gemma : public ChatFamily {
 public:
  explicit Gemma(const TemplateSource& source)
      : ChatFamily("gemma"),
        bos_(source.bos),
        takes_system_(source.has("first_user_prefix")) {}

  void write(Messages messages, const ChatOptions& options, SpanWriter& out)
      const override {
    std::string prefix;
    if (messages[0].role == "system" && takes_system_) {
      prefix = messages[0].content + "\n\n";
      messages = messages.subspan(1);
    }
    check_alternation(messages);
    out.own(bos_);
    for (const auto& message : messages) {
      const bool is_user = message.role == "user";
      out.own(is_user ? "<start_of_turn>user\n" : "<start_of_turn>model\n");
      out.message(prefix);
      prefix.clear();
      out.message(trim(message.content));
      out.own("<end_of_turn>\n");
    }
    if (options.add_generation_prompt) {
      out.own("<start_of_turn>model\n");
    }
  }

 private:
  std::string bos_;
  bool takes_system_;
};

// The one string literal with a marker in it; "" when there are several.
std::string only_literal_with(
    const TemplateSource& source,
    std::string_view marker) {
  std::string found;
  for (const auto& text : source.literals()) {
    if (text.find(marker) == text.npos) {
      continue;
    }
    if (!found.empty() && found != text) {
      return "";
    }
    found = text;
  }
  return found;
}

// Reads how an answer is written: ' ' + message['content']|trim + eos_token
bool read_answer(const TemplateSource& source, Mistral::Style& style) {
  const std::string& code = source.code();
  constexpr std::string_view kPlain = "message['content']+eos_token";
  constexpr std::string_view kTrimmed = "message['content']|trim+eos_token";
  size_t at = code.find(kTrimmed);
  style.trims_answer = at != code.npos;
  const auto form = style.trims_answer ? kTrimmed : kPlain;
  at = code.find(form);
  if (at == code.npos) {
    return false;
  }
  if (at >= 3 && code.compare(at - 3, 3, "''+") == 0) {
    style.before_answer.push_back(' ');
  }
  if (code.compare(at + form.size(), 3, "+''") == 0) {
    style.after_answer.push_back(' ');
  }
  return true;
}

} // namespace

std::unique_ptr<const ChatFamily> recognize_llama3(
    const TemplateSource& source) {
  constexpr std::string_view kMarkers[] = {
      "start_header_id",
      "end_header_id",
      "eot_id",
      "eom_id",
      "python_tag",
      "begin_of_text",
      "image"};
  const bool dated = source.has("Cutting Knowledge Date: ");
  if (!source.has("<|start_header_id|>") || !source.only_markers(kMarkers) ||
      !source.has("add_generation_prompt") || source.has("think") ||
      (dated && !source.value_of("date_string") &&
       !source.has("strftime_now")) ||
      (!dated && source.has("strftime_now"))) {
    return nullptr;
  }
  return std::make_unique<Llama3>(source, dated);
}

std::unique_ptr<const ChatFamily> recognize_gpt_oss(
    const TemplateSource& source) {
  constexpr std::string_view kMarkers[] = {
      "start",
      "end",
      "message",
      "channel",
      "return",
      "call",
      "constrain",
      "final"};
  if (!source.has("<|start|>system<|message|>") ||
      !source.has("# Valid channels: analysis, commentary, final.") ||
      !source.only_markers(kMarkers) || !source.value_of("model_identity") ||
      !source.value_of("reasoning_effort") ||
      !source.literal("Knowledge cutoff: ")) {
    return nullptr;
  }
  return std::make_unique<GptOss>(source);
}

std::unique_ptr<const ChatFamily> recognize_mistral(
    const TemplateSource& source) {
  Mistral::Style style;
  style.bos = source.bos;
  style.eos = source.eos;
  style.open = only_literal_with(source, "[INST]");
  style.close = only_literal_with(source, "[/INST]");
  if (style.open.empty() || style.close.empty() ||
      source.has("[SYSTEM_PROMPT]") || source.has("<<SYS>>") ||
      source.has("<|") || !read_answer(source, style)) {
    return nullptr;
  }
  if (source.has("loop.first and system_message")) {
    style.system = Mistral::System::kFirst;
  } else if (source.has("loop.last and system_message")) {
    style.system = Mistral::System::kLast;
  } else if (source.has("system")) {
    return nullptr;
  }
  return std::make_unique<Mistral>(std::move(style));
}

std::unique_ptr<const ChatFamily> recognize_gemma(
    const TemplateSource& source) {
  if (!source.has("<start_of_turn>") || source.has("<|") ||
      !source.has_code("|trim") || !source.has("add_generation_prompt")) {
    return nullptr;
  }
  return std::make_unique<Gemma>(source);
}

} // namespace zmlx
