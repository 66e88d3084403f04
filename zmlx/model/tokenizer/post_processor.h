// SPDX-License-Identifier: MIT
// The post-processor of a tokenizer.json: what stands around a text's ids.
#pragma once

#include <vector>

#include "zmlx/model/tokenizer/bpe.h"

namespace zmlx {

/// TemplateProcessing, BertProcessing and RobertaProcessing for one text;
/// ByteLevel, which only moves offsets; Sequences of them.
struct PostProcessor {
  PostProcessor() = default; // adds nothing
  /// Throws FileError for any other type.
  explicit PostProcessor(const Part& part);

  std::vector<TokenId> before, after;
};

} // namespace zmlx
