// SPDX-License-Identifier: MIT
#include "zmlx/runtime/lane_split.h"

namespace zmlx::cpu {

Store choose_store(
    const std::vector<mx::array>& inputs,
    const std::vector<mx::array>& outputs) {
  // What is larger than the caches is not read again from them.
  constexpr size_t kStreamedBytes = 16 << 20;
  size_t bytes = 0;
  bool shared = false;
  for (const auto& output : outputs) {
    bytes += output.nbytes();
    for (const auto& input : inputs) {
      shared = shared || input.data<char>() == output.data<char>();
    }
  }
  return shared                ? Store::Copied
      : bytes > kStreamedBytes ? Store::Streamed
                               : Store::Direct;
}

} // namespace zmlx::cpu
