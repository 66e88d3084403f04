// SPDX-License-Identifier: MIT
// Text to token ids and back, as Hugging Face's tokenizers do it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zmlx {

using TokenId = int32_t;

/// A stretch of a prompt: of a template, or what a user wrote.
struct TextSpan {
  std::string text;
  /// Whether special tokens in the text count as such; else they are text.
  bool special_tokens = true;
};

/// The tokenizer of a checkpoint folder; BPE models. Const use is thread-safe.
/// Ids equal those of Hugging Face's tokenizers 0.23 (Oniguruma with Unicode
/// 16, normalisation of Unicode 9). Truncation and padding are not applied.
class Tokenizer {
 public:
  /// Loads tokenizer.json, and bos and eos from tokenizer_config.json or
  /// special_tokens_map.json where there is one. Throws FileError that names
  /// the file, the part and what is supported.
  static std::shared_ptr<const Tokenizer> load(const std::string& folder);

  ~Tokenizer();

  /// The ids of a text. Bytes that are not UTF-8 become U+FFFD. With
  /// add_special_tokens, what the file's post-processor adds (often bos).
  /// Throws std::runtime_error when a pattern takes too many steps.
  std::vector<TokenId> encode(
      std::string_view text,
      bool add_special_tokens = true) const;

  /// The ids of the joined spans. Special tokens are found only within a span
  /// that allows them, never across its ends.
  std::vector<TokenId> encode(
      std::span<const TextSpan> spans,
      bool add_special_tokens = false) const;

  /// The text of ids, always valid UTF-8. Ids without a token are left out.
  std::string decode(
      std::span<const TokenId> ids,
      bool skip_special_tokens = false) const;

  /// How many tokens there are; ids may lie above when some are unused.
  int vocab_size() const;
  std::optional<TokenId> token_to_id(std::string_view token) const;
  /// The token as it stands in the file, or "" when there is none.
  std::string id_to_token(TokenId id) const;
  bool is_special(TokenId id) const;

  /// bos_token and eos_token of the configuration, where the vocabulary has
  /// them.
  std::optional<TokenId> bos_id() const;
  const std::vector<TokenId>& eos_ids() const;

 private:
  friend class StreamDecoder;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

/// Turns ids into text as they come. What push() and then finish() return,
/// joined, is what Tokenizer::decode makes of the whole list; every piece is
/// valid UTF-8. Text that a later id could still change is held back.
class StreamDecoder {
 public:
  explicit StreamDecoder(
      std::shared_ptr<const Tokenizer> tokenizer,
      bool skip_special_tokens = false);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  std::string push(TokenId id);
  /// What was held back; push() must not be called after it.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace zmlx
