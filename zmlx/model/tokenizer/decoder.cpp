// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/decoder.h"

#include <optional>

#include "zmlx/model/tokenizer/byte_alphabet.h"
#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {
namespace {

using Texts = std::vector<std::string>;

// No decoder: a space between tokens.
class JoinStage : public DecoderStage {
 public:
  void push(const std::string& token, Texts& out) override {
    out.push_back(first_ ? token : " " + token);
    first_ = false;
  }

 private:
  bool first_ = true;
};

// Bytes to text; a character may be spread over tokens.
class ByteLevelStage : public DecoderStage {
 public:
  void push(const std::string& token, Texts& out) override {
    pending_ += from_byte_alphabet(token).value_or(token);
    const size_t whole = pending_.size() - unicode::unfinished_tail(pending_);
    out.push_back(unicode::to_valid_utf8({pending_.data(), whole}));
    pending_.erase(0, whole);
  }
  void finish(Texts& out) override {
    out.push_back(unicode::to_valid_utf8(pending_));
  }

 private:
  std::string pending_;
};

// The byte of a token "<0x41>".
std::optional<char> byte_of(const std::string& token) {
  if (token.size() != 6 || token.compare(0, 3, "<0x") != 0 || token[5] != '>') {
    return std::nullopt;
  }
  int byte = 0;
  for (const char c : {token[3], token[4]}) {
    const int digit = c >= '0' && c <= '9' ? c - '0'
        : c >= 'a' && c <= 'f'             ? c - 'a' + 10
        : c >= 'A' && c <= 'F'             ? c - 'A' + 10
                                           : -1;
    if (digit < 0) {
      return std::nullopt;
    }
    byte = byte * 16 + digit;
  }
  return static_cast<char>(byte);
}

// A run of byte tokens is text when all of it is, else one U+FFFD a byte; so
// nothing can be said of it before it ends.
class ByteFallbackStage : public DecoderStage {
 public:
  void push(const std::string& token, Texts& out) override {
    if (const auto byte = byte_of(token)) {
      run_ += *byte;
      return;
    }
    finish(out);
    out.push_back(token);
  }
  void finish(Texts& out) override {
    if (unicode::is_valid_utf8(run_)) {
      if (!run_.empty()) {
        out.push_back(run_);
      }
    } else {
      out.insert(out.end(), run_.size(), std::string(unicode::kReplacement));
    }
    run_.clear();
  }

 private:
  std::string run_;
};

class ReplaceStage : public DecoderStage {
 public:
  ReplaceStage(const Pattern& pattern, const std::string& content)
      : pattern_(pattern), content_(content) {}
  void push(const std::string& token, Texts& out) override {
    std::string text;
    for (const auto& stretch : pattern_.cut(token)) {
      if (stretch.matched) {
        text += content_;
      } else {
        text.append(token, stretch.begin, stretch.end - stretch.begin);
      }
    }
    out.push_back(std::move(text));
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class MetaspaceStage : public DecoderStage {
 public:
  MetaspaceStage(const std::string& mark, bool drops_first)
      : mark_(mark), drop_(drops_first) {}
  void push(const std::string& token, Texts& out) override {
    std::string text;
    for (const auto& stretch : cut_at_literal(token, mark_)) {
      if (!stretch.matched) {
        text.append(token, stretch.begin, stretch.end - stretch.begin);
      } else if (!drop_) {
        text += ' ';
      }
    }
    drop_ = false;
    out.push_back(std::move(text));
  }

 private:
  std::string mark_;
  bool drop_;
};

// Strips the ends of one text that comes in pieces.
class StripStage : public DecoderStage {
 public:
  StripStage(const std::string& content, size_t start, size_t stop)
      : content_(content), start_(start), stop_(stop) {}
  void push(const std::string& text, Texts& out) override {
    std::string kept;
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      unicode::next(text, at);
      const bool same = text.compare(begin, at - begin, content_) == 0;
      if (same && start_ > 0) {
        --start_;
        continue;
      }
      start_ = 0;
      if (same) {
        ++held_;
      } else {
        give(held_, kept);
        kept.append(text, begin, at - begin);
      }
    }
    if (held_ > stop_) {
      give(held_ - stop_, kept);
    }
    out.push_back(std::move(kept));
  }

 private:
  void give(size_t count, std::string& out) {
    for (; count > 0; --count, --held_) {
      out += content_;
    }
  }

  std::string content_;
  size_t start_, stop_;
  size_t held_ = 0; // trailing contents, perhaps to be stripped
};

// Strips the ends of every token.
class StripTokensStage : public DecoderStage {
 public:
  explicit StripTokensStage(const StripStage& stage) : stage_(stage) {}
  void push(const std::string& token, Texts& out) override {
    StripStage(stage_).push(token, out);
  }

 private:
  StripStage stage_;
};

// Gathers pieces into the one token that the next stage must see whole.
class GatherStage : public DecoderStage {
 public:
  void push(const std::string& text, Texts&) override {
    all_ += text;
  }
  void finish(Texts& out) override {
    out.push_back(std::move(all_));
  }

 private:
  std::string all_;
};

template <class Stage, class... Values>
std::function<std::unique_ptr<DecoderStage>()> maker(Values... values) {
  return [values...] { return std::make_unique<Stage>(values...); };
}

std::string one_character(const Part& part, std::string_view key) {
  const std::string text = part.text(key);
  size_t at = 0;
  if (text.empty() || (unicode::next(text, at), at != text.size())) {
    part.at(key).fail("must be one character.");
  }
  return text;
}

// What a stage other than Strip and Fuse makes of whole tokens.
std::function<std::unique_ptr<DecoderStage>()> token_stage(
    const std::string& type,
    const Part& part) {
  if (type == "ByteLevel") {
    return maker<ByteLevelStage>();
  }
  if (type == "ByteFallback") {
    return maker<ByteFallbackStage>();
  }
  if (type == "Replace") {
    return maker<ReplaceStage>(
        Pattern(part.at("pattern")), part.text("content"));
  }
  if (type == "Metaspace") {
    return maker<MetaspaceStage>(
        one_character(part, "replacement"),
        part.text("prepend_scheme", "always") != "never");
  }
  part.fail(
      "is not supported; decoders that are: ByteLevel, ByteFallback, Fuse, "
      "Metaspace, Replace, Strip, Sequence.");
}

} // namespace

DecoderRun::DecoderRun(std::vector<std::unique_ptr<DecoderStage>> stages)
    : stages_(std::move(stages)) {}

Texts DecoderRun::through(size_t first_stage, Texts tokens) {
  for (size_t i = first_stage; i < stages_.size(); ++i) {
    Texts next;
    for (const auto& token : tokens) {
      stages_[i]->push(token, next);
    }
    tokens = std::move(next);
  }
  return tokens;
}

std::string DecoderRun::push(std::string token) {
  std::string out;
  for (const auto& text : through(0, {std::move(token)})) {
    out += text;
  }
  return out;
}

std::string DecoderRun::finish() {
  std::string out;
  for (size_t i = 0; i < stages_.size(); ++i) {
    Texts last;
    stages_[i]->finish(last);
    for (const auto& text : through(i + 1, std::move(last))) {
      out += text;
    }
  }
  return out;
}

Decoder::Decoder() : makers_{maker<JoinStage>()} {}

// `in_pieces`: what comes is one token in pieces, as after Fuse.
Decoder::Decoder(const Part& part) {
  bool in_pieces = false;
  for (const auto& [type, step] : flatten(part, "decoders")) {
    if (type == "Fuse") {
      in_pieces = true;
      continue;
    }
    if (type == "Strip") {
      constexpr int64_t kMostStripped = 1 << 20;
      const StripStage stage(
          one_character(step, "content"),
          static_cast<size_t>(step.number("start", kMostStripped)),
          static_cast<size_t>(step.number("stop", kMostStripped)));
      makers_.push_back(
          in_pieces ? maker<StripStage>(stage)
                    : maker<StripTokensStage>(stage));
      continue;
    }
    if (in_pieces) {
      makers_.push_back(maker<GatherStage>());
    }
    makers_.push_back(token_stage(type, step));
    in_pieces = type == "ByteLevel";
  }
}

DecoderRun Decoder::start() const {
  std::vector<std::unique_ptr<DecoderStage>> stages;
  for (const auto& make : makers_) {
    stages.push_back(make());
  }
  return DecoderRun(std::move(stages));
}

} // namespace zmlx
