// SPDX-License-Identifier: MIT
// The small files beside tokenizer.json.
#pragma once

#include <optional>
#include <string>

namespace zmlx {

struct SpecialTokenNames {
  std::optional<std::string> bos, eos;
};

/// bos_token and eos_token of tokenizer_config.json, else of
/// special_tokens_map.json. Throws FileError.
SpecialTokenNames read_special_token_names(const std::string& folder);

} // namespace zmlx
