// SPDX-License-Identifier: MIT
#include <filesystem>

#include "zmlx/base/hash.h"
#include "zmlx/model/checkpoint/checkpoint.h"

namespace zmlx {

namespace fs = std::filesystem;

std::string Checkpoint::hash() const {
  constexpr size_t kBlocks = 64, kBlockBytes = 4096;
  Hash hash;
  const auto add = [&](std::string_view text) {
    // Lengths are hashed too, as eight little-endian bytes, so that no byte can
    // move from one field to the next unseen.
    char length[8];
    for (int i = 0; i < 8; ++i) {
      length[i] = static_cast<char>(uint64_t(text.size()) >> (8 * i));
    }
    hash.add({length, sizeof length});
    hash.add(text);
  };
  add(config_text_);
  for (const auto& file : files_) {
    const std::string_view bytes = file.map->text();
    const std::string_view data = bytes.substr(file.header.data_begin);
    add(fs::path(file.map->path()).filename().string());
    add(bytes.substr(0, file.header.data_begin));
    add(std::to_string(data.size()));
    if (data.size() <= kBlocks * kBlockBytes) {
      add(data);
      continue;
    }
    const size_t last = data.size() - kBlockBytes;
    for (size_t i = 0; i < kBlocks; ++i) {
      const size_t begin = i + 1 == kBlocks ? last : last / (kBlocks - 1) * i;
      add(data.substr(begin, kBlockBytes));
    }
  }
  return hash.hex();
}

} // namespace zmlx
