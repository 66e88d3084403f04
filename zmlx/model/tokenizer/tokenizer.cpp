// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/tokenizer.h"

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/added_tokens.h"
#include "zmlx/model/tokenizer/config_files.h"
#include "zmlx/model/tokenizer/decoder.h"
#include "zmlx/model/tokenizer/post_processor.h"
#include "zmlx/model/tokenizer/pre_tokenizer.h"
#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {

struct Tokenizer::Parts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe model;
  AddedTokens added;
  PostProcessor post_processor;
  Decoder decoder;
  std::optional<TokenId> bos;
  std::vector<TokenId> eos;

  // The token of an id as the decoder takes it; null: none, or left out.
  const std::string* decoded_token(TokenId id, bool skip_special) const {
    if (const AddedToken* token = added.find(id)) {
      return skip_special && token->special ? nullptr : &token->normalized;
    }
    return model.token_of(id);
  }

  void encode_words(Piece piece, std::vector<TokenId>& ids) const {
    for (const auto& word : pre_tokenizer.apply(std::move(piece))) {
      model.encode(word.text, ids);
    }
  }

  // A stretch without raw added tokens. `plain`: holds text of a user.
  void encode_stretch(
      std::string_view stretch,
      bool at_start,
      bool plain,
      std::vector<TokenId>& ids) const {
    const std::string text = normalizer.apply(std::string(stretch));
    std::vector<PlainRange> ranges;
    if (plain) {
      ranges.emplace_back(0, text.size());
    }
    for (const auto& match : added.cut(text, true, ranges)) {
      if (match.token) {
        ids.push_back(match.token->id);
      } else {
        encode_words(
            {text.substr(match.begin, match.end - match.begin),
             at_start && match.begin == 0},
            ids);
      }
    }
  }
};

namespace {

bool overlaps(const std::vector<PlainRange>& plain, size_t begin, size_t end) {
  for (const auto& [first, last] : plain) {
    if (first < end && begin < last) {
      return true;
    }
  }
  return false;
}

} // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts)
    : parts_(std::move(parts)) {}

Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  const Json json = read_json(path);
  const Part root(json, path, "");
  if (root.text("version", "1.0") != "1.0") {
    root.at("version").fail(
        concat("must be 1.0, got '", root.text("version"), "'."));
  }
  auto parts = std::make_unique<Parts>();
  if (root.has("normalizer")) {
    parts->normalizer = Normalizer(root.at("normalizer"));
  }
  if (root.has("pre_tokenizer")) {
    parts->pre_tokenizer = PreTokenizer(root.at("pre_tokenizer"));
  }
  parts->model = Bpe(root.at("model"));
  parts->added = AddedTokens(root, parts->model, parts->normalizer);
  if (root.has("post_processor")) {
    parts->post_processor = PostProcessor(root.at("post_processor"));
  }
  if (root.has("decoder")) {
    parts->decoder = Decoder(root.at("decoder"));
  }
  auto* const filled = parts.get();
  const std::shared_ptr<Tokenizer> tokenizer(new Tokenizer(std::move(parts)));
  const auto [bos, eos] = read_special_token_names(folder);
  filled->bos = bos ? tokenizer->token_to_id(*bos) : std::nullopt;
  if (const auto id = eos ? tokenizer->token_to_id(*eos) : std::nullopt) {
    filled->eos.push_back(*id);
  }
  return tokenizer;
}

std::vector<TokenId> Tokenizer::encode(
    std::string_view text,
    bool add_special_tokens) const {
  const TextSpan span{std::string(text), true};
  return encode(std::span(&span, 1), add_special_tokens);
}

std::vector<TokenId> Tokenizer::encode(
    std::span<const TextSpan> spans,
    bool add_special_tokens) const {
  std::string text;
  std::vector<PlainRange> plain;
  for (const auto& span : spans) {
    const size_t begin = text.size();
    text += unicode::to_valid_utf8(span.text);
    if (!span.special_tokens && text.size() > begin) {
      plain.emplace_back(begin, text.size());
    }
  }
  std::vector<TokenId> ids;
  if (add_special_tokens) {
    ids = parts_->post_processor.before;
  }
  for (const auto& match : parts_->added.cut(text, false, plain)) {
    if (match.token) {
      ids.push_back(match.token->id);
    } else {
      parts_->encode_stretch(
          std::string_view(text).substr(match.begin, match.end - match.begin),
          match.begin == 0,
          overlaps(plain, match.begin, match.end),
          ids);
    }
  }
  if (add_special_tokens) {
    const auto& after = parts_->post_processor.after;
    ids.insert(ids.end(), after.begin(), after.end());
  }
  return ids;
}

std::string Tokenizer::decode(
    std::span<const TokenId> ids,
    bool skip_special_tokens) const {
  DecoderRun run = parts_->decoder.start();
  std::string text;
  for (const TokenId id : ids) {
    if (const auto* token = parts_->decoded_token(id, skip_special_tokens)) {
      text += run.push(*token);
    }
  }
  return text + run.finish();
}

int Tokenizer::vocab_size() const {
  int size = parts_->model.size();
  for (const auto& token : parts_->added.all()) {
    size += parts_->model.id_of(token.content) ? 0 : 1;
  }
  return size;
}

std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
  const AddedToken* added = parts_->added.find(token);
  return added ? added->id : parts_->model.id_of(token);
}

std::string Tokenizer::id_to_token(TokenId id) const {
  if (const AddedToken* added = parts_->added.find(id)) {
    return added->content;
  }
  const std::string* token = parts_->model.token_of(id);
  return token ? *token : std::string();
}

bool Tokenizer::is_special(TokenId id) const {
  const AddedToken* added = parts_->added.find(id);
  return added && added->special;
}

std::optional<TokenId> Tokenizer::bos_id() const {
  return parts_->bos;
}

const std::vector<TokenId>& Tokenizer::eos_ids() const {
  return parts_->eos;
}

struct StreamDecoder::State {
  std::shared_ptr<const Tokenizer> tokenizer;
  bool skip_special;
  DecoderRun run;
};

StreamDecoder::StreamDecoder(
    std::shared_ptr<const Tokenizer> tokenizer,
    bool skip_special_tokens) {
  DecoderRun run = tokenizer->parts_->decoder.start();
  state_ = std::make_unique<State>(
      State{std::move(tokenizer), skip_special_tokens, std::move(run)});
}

StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(TokenId id) {
  const auto* token =
      state_->tokenizer->parts_->decoded_token(id, state_->skip_special);
  return token ? state_->run.push(*token) : std::string();
}

std::string StreamDecoder::finish() {
  return state_->run.finish();
}

} // namespace zmlx
