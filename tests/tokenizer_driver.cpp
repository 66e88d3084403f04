// SPDX-License-Identifier: MIT
// Runs the tokenizer for the pytest files: JSON on stdin, JSON on stdout.
#include <iostream>
#include <iterator>

#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/model/tokenizer/chat_template.h"
#include "zmlx/model/tokenizer/tokenizer.h"

namespace {

using zmlx::Json;
using zmlx::TokenId;

// One conversation: {"messages": [{"role", "content"}], "options": {...}} to
// {"text": prompt} or {"error": message}, and "ids" with a tokenizer.
Json chat(
    const zmlx::ChatTemplate& family,
    const zmlx::Tokenizer* tokenizer,
    const Json& input) {
  std::vector<zmlx::ChatMessage> messages;
  for (const auto& message : input["messages"]) {
    messages.push_back({message["role"], message["content"]});
  }
  zmlx::ChatOptions options;
  options.add_generation_prompt = input["add_generation_prompt"];
  options.enable_thinking = input["enable_thinking"];
  options.date = input["date"];
  try {
    const auto spans = family.apply(messages, options);
    Json out = {{"text", ""}};
    for (const auto& span : spans) {
      out["text"] = out["text"].get<std::string>() + span.text;
    }
    if (tokenizer) {
      out["ids"] = tokenizer->encode(spans);
    }
    return out;
  } catch (const std::invalid_argument& error) {
    return {{"error", error.what()}};
  }
}

// {"name": family, "prompts": [...]}, or null when there is no template.
Json run_chat(const std::string& folder, bool encode, const Json& input) {
  const auto family = zmlx::ChatTemplate::detect(folder);
  if (!family) {
    return nullptr;
  }
  const auto tokenizer = encode ? zmlx::Tokenizer::load(folder) : nullptr;
  Json out = {{"name", family->name()}, {"prompts", Json::array()}};
  for (const auto& item : input) {
    out["prompts"].push_back(chat(*family, tokenizer.get(), item));
  }
  return out;
}

Json run(
    const std::string& mode,
    const std::string& folder,
    const Json& input) {
  if (mode == "chat" || mode == "chat-ids") {
    return run_chat(folder, mode == "chat-ids", input);
  }
  const auto tokenizer = zmlx::Tokenizer::load(folder);
  Json out = Json::array();
  for (const auto& item : input) {
    if (mode == "encode" || mode == "encode-special") {
      out.push_back(
          tokenizer->encode(item.get<std::string>(), mode == "encode-special"));
    } else if (mode == "encode-plain") {
      const zmlx::TextSpan span{item.get<std::string>(), false};
      out.push_back(tokenizer->encode({&span, 1}));
    } else if (mode == "decode" || mode == "decode-skip") {
      out.push_back(tokenizer->decode(
          item.get<std::vector<TokenId>>(), mode == "decode-skip"));
    } else if (mode == "stream") {
      zmlx::StreamDecoder stream(tokenizer);
      std::string text;
      for (const auto& id : item) {
        text += stream.push(id.get<TokenId>());
      }
      out.push_back(text + stream.finish());
    } else {
      zmlx::invalid("tokenizer_driver", "unknown mode '", mode, "'.");
    }
  }
  return out;
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: tokenizer_driver MODE FOLDER <JSON\n";
    return 2;
  }
  try {
    const std::string text(std::istreambuf_iterator<char>(std::cin), {});
    std::cout << run(argv[1], argv[2], zmlx::parse_json(text, "stdin")).dump();
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
