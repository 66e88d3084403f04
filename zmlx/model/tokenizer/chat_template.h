// SPDX-License-Identifier: MIT
// Turns of a chat to the prompt of a model family; no template engine.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "zmlx/model/tokenizer/tokenizer.h"

namespace zmlx {

struct ChatMessage {
  std::string role; // system, user or assistant
  std::string content;
};

struct ChatOptions {
  /// End with what opens the assistant's turn.
  bool add_generation_prompt = true;
  /// false: an empty think block opens the turn, in families with that switch.
  bool enable_thinking = true;
  /// The day that GPT-OSS and Llama 3.2 are told, YYYY-MM-DD; "" is today.
  std::string date;
};

class ChatFamily;

/// The chat template of a checkpoint, recognised by marks in its text: ChatML
/// (LFM2, Qwen2, Qwen3 and plain), Llama 3 and 3.1, GPT-OSS, Mistral (without
/// [SYSTEM_PROMPT]) and Gemma. Tools are not supported. Const use is
/// thread-safe.
class ChatTemplate {
 public:
  /// Reads chat_template.jinja, tokenizer_config.json (a string, or the entry
  /// "default" of a list) or chat_template.json, the first that has one; none
  /// gives nullopt. Throws FileError for a template that is not known.
  static std::optional<ChatTemplate> detect(const std::string& folder);

  /// The prompt in spans: special tokens count in the template's own text, and
  /// are text in the messages. Joined, the spans are what transformers'
  /// apply_chat_template gives. Throws std::invalid_argument when there is no
  /// message, or a role or an order of roles that the template refuses.
  std::vector<TextSpan> apply(
      std::span<const ChatMessage> messages,
      const ChatOptions& options = {}) const;

  /// lfm2, qwen2, qwen3, chatml, llama3, llama3.1, gpt-oss, mistral or gemma.
  const std::string& name() const;

 private:
  explicit ChatTemplate(std::shared_ptr<const ChatFamily> family);
  std::shared_ptr<const ChatFamily> family_;
};

} // namespace zmlx
