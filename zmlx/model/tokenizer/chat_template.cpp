// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/chat_template.h"

#include <filesystem>

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/chat_family.h"
#include "zmlx/model/tokenizer/config_files.h"
#include "zmlx/model/tokenizer/part.h"

namespace zmlx {
namespace {

struct Found {
  std::string path, text;
};

// A string, or a list of {"name": ..., "template": ...}.
std::optional<std::string> read_entry(const std::string& path) {
  if (!std::filesystem::exists(path)) {
    return std::nullopt;
  }
  const Json json = read_json(path);
  const Part config(json, path, "");
  if (!config.has("chat_template")) {
    return std::nullopt;
  }
  if (!config.at("chat_template").json().is_array()) {
    return config.text("chat_template");
  }
  for (const Part& entry : config.items("chat_template")) {
    if (entry.text("name") == "default") {
      return entry.text("template");
    }
  }
  config.at("chat_template").fail("must have an entry named 'default'.");
}

std::optional<Found> find_template(const std::string& folder) {
  const std::string jinja = folder + "/chat_template.jinja";
  if (std::filesystem::exists(jinja)) {
    return Found{jinja, read_file(jinja, 1 << 20)};
  }
  for (const char* file : {"tokenizer_config.json", "chat_template.json"}) {
    const std::string path = folder + "/" + file;
    if (auto text = read_entry(path)) {
      return Found{path, std::move(*text)};
    }
  }
  return std::nullopt;
}

std::string model_type_of(const std::string& folder) {
  const std::string path = folder + "/config.json";
  if (!std::filesystem::exists(path)) {
    return "unknown";
  }
  const Json json = read_json(path);
  return Part(json, path, "").text("model_type", "unknown");
}

} // namespace

ChatTemplate::ChatTemplate(std::shared_ptr<const ChatFamily> family)
    : family_(std::move(family)) {}

std::optional<ChatTemplate> ChatTemplate::detect(const std::string& folder) {
  const auto found = find_template(folder);
  if (!found) {
    return std::nullopt;
  }
  const auto [bos, eos] = read_special_token_names(folder);
  const TemplateSource source(found->text, bos.value_or(""), eos.value_or(""));
  constexpr Recognizer kRecognizers[] = {
      recognize_gpt_oss,
      recognize_chatml,
      recognize_llama3,
      recognize_mistral,
      recognize_gemma};
  for (const auto recognize : kRecognizers) {
    if (auto family = recognize(source)) {
      return ChatTemplate(std::move(family));
    }
  }
  bad_file(
      found->path,
      "the chat template must be like that of LFM2, Qwen2, Qwen3, another "
      "plain ChatML, Llama 3, GPT-OSS, Mistral or Gemma, got another of "
      "model_type '",
      model_type_of(folder),
      "'. Try: --raw, with the turns written out in the prompt.");
}

std::vector<TextSpan> ChatTemplate::apply(
    std::span<const ChatMessage> messages,
    const ChatOptions& options) const {
  if (messages.empty()) {
    invalid("chat_template", "there must be a message, got none.");
  }
  for (const auto& [role, content] : messages) {
    if (role != "system" && role != "user" && role != "assistant") {
      invalid(
          "chat_template",
          "role must be system, user or assistant, got '",
          role,
          "'.");
    }
  }
  SpanWriter out;
  family_->write(messages, options, out);
  return out.take();
}

const std::string& ChatTemplate::name() const {
  return family_->name();
}

} // namespace zmlx
