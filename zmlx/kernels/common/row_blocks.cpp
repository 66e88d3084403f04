// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/row_blocks.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "zmlx/base/huge_memory.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::cpu {
namespace {

// Rows [row, row + kBlockRows), in the order that PackedMatrix tells.
void pack_block(const PackedMatrix& w, int64_t row, uint32_t* out) {
  const int64_t words = w.words_per_group();
  for (int64_t g = 0; g < w.groups_per_row(); ++g) {
    for (int64_t r = 0; r < kBlockRows; ++r) {
      uint16_t both[2];
      std::memcpy(
          both, static_cast<const char*>(w.row_scales(row + r)) + 2 * g, 2);
      std::memcpy(
          both + 1, static_cast<const char*>(w.row_biases(row + r)) + 2 * g, 2);
      std::memcpy(out + r, both, 4);
      const uint32_t* from = w.row_words(row + r) + g * words;
      for (int64_t k = 0; k < words; ++k) {
        out[(1 + k) * kBlockRows + r] = from[k];
      }
    }
    out += w.block_group_words();
  }
}

} // namespace

bool RowBlocks::fit(const PackedMatrix& w) {
  return w.scheme == Scheme::Affine && !w.in_blocks &&
      (w.bits == 4 || w.bits == 8) && size_of(w.float_type) == 2 &&
      w.rows > 0 && w.rows % kBlockRows == 0;
}

RowBlocks::RowBlocks(const PackedMatrix& w, int64_t count) : matrix_(w) {
  memory_ = huge_memory(w.nbytes() * static_cast<uint64_t>(count));
  matrix_.in_blocks = true;
  matrix_.words = reinterpret_cast<const uint32_t*>(memory_.get());
  matrix_.scales = matrix_.biases = nullptr;
  const int64_t blocks = count * w.rows / kBlockRows;
  const int64_t block_words = w.groups_per_row() * w.block_group_words();
  constexpr int64_t kBlocksATask = 16;
  std::atomic<int64_t> next{0};
  thread_team()->run([&](int) {
    for (int64_t task; (task = next.fetch_add(kBlocksATask)) < blocks;) {
      for (int64_t b = task; b < std::min(blocks, task + kBlocksATask); ++b) {
        auto* out = reinterpret_cast<uint32_t*>(memory_.get());
        pack_block(w, b * kBlockRows, out + b * block_words);
      }
    }
  });
}

} // namespace zmlx::cpu
