// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/row_blocks.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>

#include "zmlx/base/huge_memory.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::cpu {
namespace {

// Bytes of rows that one task reads: they and their blocks stay in L2.
constexpr int64_t kBytesATask = int64_t{256} << 10;

// GCC's and Clang's own vectors: every machine has 16 bytes, and this is before
// any choice of instruction set.
using Quad = uint32_t __attribute__((vector_size(16)));

Quad load(const uint32_t* words) {
  Quad quad;
  std::memcpy(&quad, words, sizeof quad);
  return quad;
}

void store(Quad quad, uint32_t* words) {
  std::memcpy(words, &quad, sizeof quad);
}

// Rows [row, row + 4) of words, each to its place in every line of the block:
// squares of four by four are turned.
void pack_words(const PackedMatrix& w, int64_t row, uint32_t* out) {
  const int64_t fields = w.words_per_unit();
  const uint32_t* from[4];
  for (int64_t i = 0; i < 4; ++i) {
    from[i] = w.row_words(row + i);
  }
  for (int64_t u = 0; u < w.units_per_row(); ++u) {
    uint32_t* line = out + u * w.block_unit_words() + kBlockRows;
    for (int64_t k = 0; k < fields; k += 4, line += 4 * kBlockRows) {
      const int64_t at = u * fields + k;
      const Quad a = load(from[0] + at), b = load(from[1] + at);
      const Quad c = load(from[2] + at), d = load(from[3] + at);
      const Quad ac0 = __builtin_shufflevector(a, c, 0, 4, 1, 5);
      const Quad ac2 = __builtin_shufflevector(a, c, 2, 6, 3, 7);
      const Quad bd0 = __builtin_shufflevector(b, d, 0, 4, 1, 5);
      const Quad bd2 = __builtin_shufflevector(b, d, 2, 6, 3, 7);
      store(__builtin_shufflevector(ac0, bd0, 0, 4, 1, 5), line);
      store(__builtin_shufflevector(ac0, bd0, 2, 6, 3, 7), line + kBlockRows);
      store(
          __builtin_shufflevector(ac2, bd2, 0, 4, 1, 5), line + 2 * kBlockRows);
      store(
          __builtin_shufflevector(ac2, bd2, 2, 6, 3, 7), line + 3 * kBlockRows);
    }
  }
}

// The word of scales of each unit of a row.
void pack_scales(const PackedMatrix& w, int64_t row, uint32_t* out) {
  if (w.scheme != Scheme::Affine) {
    const auto* bytes = static_cast<const char*>(w.row_scales(row));
    for (int64_t u = 0; u < w.units_per_row(); ++u) {
      std::memcpy(out + u * w.block_unit_words(), bytes + 4 * u, 4);
    }
    return;
  }
  const auto* scales = static_cast<const uint16_t*>(w.row_scales(row));
  const auto* biases = static_cast<const uint16_t*>(w.row_biases(row));
  for (int64_t g = 0; g < w.groups_per_row(); ++g) {
    out[g * w.block_unit_words()] =
        scales[g] | static_cast<uint32_t>(biases[g]) << 16;
  }
}

// Rows [row, row + kBlockRows), in the order that PackedMatrix tells.
void pack_block(const PackedMatrix& w, int64_t row, uint32_t* out) {
  for (int64_t r = 0; r < kBlockRows; r += 4) {
    pack_words(w, row + r, out + r);
  }
  for (int64_t r = 0; r < kBlockRows; ++r) {
    pack_scales(w, row + r, out + r);
  }
}

/// The first of what threads throw.
class Failure {
 public:
  template <class Step>
  void guard(const Step& step) {
    try {
      step();
    } catch (...) {
      std::lock_guard lock(mutex_);
      failed_ = true;
      first_ = first_ ? first_ : std::current_exception();
    }
  }
  bool failed() const {
    return failed_;
  }
  void rethrow() const {
    if (first_) {
      std::rethrow_exception(first_);
    }
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> failed_{false};
  std::exception_ptr first_;
};

} // namespace

bool RowBlocks::fit(const PackedMatrix& w) {
  const bool fits = w.scheme == Scheme::Affine
      ? (w.bits == 4 || w.bits == 8) && size_of(w.float_type) == 2
      : w.bits == 4 && w.groups_per_row() % w.groups_per_unit() == 0;
  return fits && !w.in_blocks && w.rows > 0 && w.rows % kBlockRows == 0;
}

RowBlocks::RowBlocks(const PackedMatrix& w, int64_t count)
    : RowBlocks(w, count, [&](int64_t first, int64_t, std::vector<char>&) {
        return w.from(first);
      }) {}

RowBlocks::RowBlocks(const PackedMatrix& w, int64_t count, const ReadRows& read)
    : matrix_(w) {
  memory_ = huge_memory(w.nbytes() * static_cast<uint64_t>(count));
  auto* const out = reinterpret_cast<uint32_t*>(memory_.get());
  matrix_.in_blocks = true;
  matrix_.words = out;
  matrix_.scales = matrix_.biases = nullptr;
  const int64_t blocks = count * w.rows / kBlockRows;
  const int64_t block_words = w.block_words();
  const int64_t a_task = std::max<int64_t>(1, kBytesATask / (block_words * 4));
  std::atomic<int64_t> next{0};
  Failure failure;
  thread_team()->run([&](int) {
    failure.guard([&] {
      std::vector<char> buffer;
      for (int64_t first;
           !failure.failed() && (first = next.fetch_add(a_task)) < blocks;) {
        const int64_t here = std::min(a_task, blocks - first);
        const PackedMatrix rows =
            read(first * kBlockRows, here * kBlockRows, buffer);
        for (int64_t b = 0; b < here; ++b) {
          pack_block(rows, b * kBlockRows, out + (first + b) * block_words);
        }
      }
    });
  });
  failure.rethrow();
}

} // namespace zmlx::cpu
