// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/config_files.h"

#include <filesystem>

#include "zmlx/model/tokenizer/part.h"

namespace zmlx {
namespace {

// "<s>" or {"content": "<s>", ...}
std::optional<std::string> token_text(const Part& config, const char* key) {
  if (!config.has(key)) {
    return std::nullopt;
  }
  const Part value = config.at(key);
  return value.json().is_object() ? value.text("content") : value.text();
}

} // namespace

SpecialTokenNames read_special_token_names(const std::string& folder) {
  SpecialTokenNames names;
  for (const char* file :
       {"tokenizer_config.json", "special_tokens_map.json"}) {
    const std::string path = folder + "/" + file;
    if (!std::filesystem::exists(path)) {
      continue;
    }
    const Json json = read_json(path);
    const Part config(json, path, "");
    names.bos = names.bos ? names.bos : token_text(config, "bos_token");
    names.eos = names.eos ? names.eos : token_text(config, "eos_token");
  }
  return names;
}

} // namespace zmlx
