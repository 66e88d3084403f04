// SPDX-License-Identifier: MIT
// The rows of a mapped weight in blocks, made when a fused module asks.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "zmlx/base/mapped_file.h"
#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx {

namespace mx = mlx::core;

/// Where the values of an array lie in a mapped file; none for an array in
/// memory of its own.
using FindPlace = std::function<std::optional<FilePlace>(const mx::array&)>;

/// Made once and kept as long as a fused module holds it, so that weights are
/// in memory once: fused modules read the blocks, stock ones the file's pages,
/// which are resident only while they are in use. One thread at a time.
class KeptBlocks {
 public:
  /// place_of: for the arrays that get() is called with.
  explicit KeptBlocks(FindPlace place_of) : place_of_(std::move(place_of)) {}

  /// Null where the matrix cannot lie in blocks, or would be in memory twice.
  /// Throws FileError when reading the file fails.
  std::shared_ptr<const cpu::RowBlocks> get(const quant::QuantizedArrays& rows);

  /// While there are blocks, the pages of these arrays are not needed.
  void let_go(const std::vector<mx::array>& rows) const;

 private:
  FindPlace place_of_;
  std::weak_ptr<const cpu::RowBlocks> blocks_;
};

} // namespace zmlx
