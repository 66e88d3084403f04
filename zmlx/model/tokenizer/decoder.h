// SPDX-License-Identifier: MIT
// The decoder of a tokenizer.json, run token by token.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "zmlx/model/tokenizer/part.h"

namespace zmlx {

/// One step of a decoder. It hands on what later tokens cannot change, and
/// keeps the rest.
class DecoderStage {
 public:
  virtual ~DecoderStage() = default;
  virtual void push(
      const std::string& token,
      std::vector<std::string>& out) = 0;
  virtual void finish(std::vector<std::string>&) {}
};

/// The text of tokens, as they come: push() and then finish() together give
/// what Hugging Face's decoder makes of the whole list.
class DecoderRun {
 public:
  explicit DecoderRun(std::vector<std::unique_ptr<DecoderStage>> stages);
  std::string push(std::string token);
  std::string finish();

 private:
  std::vector<std::string> through(
      size_t first_stage,
      std::vector<std::string> tokens);
  std::vector<std::unique_ptr<DecoderStage>> stages_;
};

/// ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip and Sequences of
/// them; without a decoder, tokens are joined by spaces.
class Decoder {
 public:
  Decoder();
  /// Throws FileError for any other type.
  explicit Decoder(const Part& part);

  DecoderRun start() const;

 private:
  using Maker = std::function<std::unique_ptr<DecoderStage>()>;
  std::vector<Maker> makers_;
};

} // namespace zmlx
