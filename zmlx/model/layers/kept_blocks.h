// SPDX-License-Identifier: MIT
// The rows of a mapped weight in blocks, made when a fused module asks.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx {

namespace mx = mlx::core;

/// Tells the system whether a mapped array's pages are needed soon, or no
/// longer. Returns false for an array that is in memory of its own.
using AdvisePages = std::function<bool(const mx::array&, bool needed)>;

/// Made once and kept as long as a fused module holds it, so that weights are
/// in memory once: stock modules read the file's pages, fused ones the blocks.
/// One thread at a time.
class KeptBlocks {
 public:
  /// advise: for the arrays that get() is called with.
  explicit KeptBlocks(AdvisePages advise) : advise_(std::move(advise)) {}

  /// Null where the matrix cannot lie in blocks, or would be in memory twice.
  std::shared_ptr<const cpu::RowBlocks> get(const quant::QuantizedArrays& rows);

  /// While there are blocks, the pages of these arrays are not needed.
  void let_go(const std::vector<mx::array>& rows) const;

 private:
  AdvisePages advise_;
  std::weak_ptr<const cpu::RowBlocks> blocks_;
};

} // namespace zmlx
