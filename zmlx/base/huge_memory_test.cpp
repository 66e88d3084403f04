// SPDX-License-Identifier: MIT
#include "zmlx/base/huge_memory.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include <gtest/gtest.h>

namespace zmlx {
namespace {

TEST(HugeMemory, PiecesOfAnySizeStartLinesAndDoNotOverlap) {
  std::vector<std::pair<std::shared_ptr<char>, size_t>> pieces;
  for (size_t bytes : {1, 64, 65, 3 << 20, 40 << 20, 31 << 20, 31 << 20, 7}) {
    pieces.emplace_back(huge_memory(bytes), bytes);
    const auto& [piece, size] = pieces.back();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(piece.get()) % 64, 0u);
    std::memset(piece.get(), static_cast<int>(pieces.size()), size);
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto& [piece, size] = pieces[i];
    EXPECT_EQ(piece.get()[0], static_cast<char>(i + 1));
    EXPECT_EQ(piece.get()[size - 1], static_cast<char>(i + 1));
  }
}

TEST(HugeMemory, APieceOutlivesItsNeighbours) {
  auto first = huge_memory(100);
  auto second = huge_memory(100);
  second.get()[99] = 5;
  first.reset();
  EXPECT_EQ(huge_memory(100).get()[0], 0);
  EXPECT_EQ(second.get()[99], 5);
}

TEST(HugeMemory, WhatNoMachineHasIsRefused) {
  EXPECT_THROW(
      huge_memory(std::numeric_limits<size_t>::max() / 4), std::bad_alloc);
}

} // namespace
} // namespace zmlx
