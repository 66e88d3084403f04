// SPDX-License-Identifier: MIT
// The rows of a weight in a file in blocks, made when a fused module asks.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "zmlx/base/mapped_file.h"
#include "zmlx/kernels/common/quantized_arrays.h"

namespace zmlx {

namespace mx = mlx::core;

/// Where the values of an array lie in a file; none for an array in memory of
/// its own.
using FindPlace = std::function<std::optional<FilePlace>(const mx::array&)>;

/// Made once and kept as long as a fused module holds it, so that weights are
/// in memory once: fused modules read the blocks, stock ones arrays that are
/// resident only while they are in use. One thread at a time.
class KeptBlocks {
 public:
  /// rows: a matrix or a stack of them, as it came from the file.
  KeptBlocks(quant::QuantizedArrays rows, const FindPlace& place_of);

  /// Null where the matrix cannot lie in blocks, or would be in memory twice.
  /// Throws FileError when reading the file fails.
  std::shared_ptr<const cpu::RowBlocks> get();
  /// What get() made, if somebody still holds it; else null.
  std::shared_ptr<const cpu::RowBlocks> held() const {
    return blocks_.lock();
  }

  /// The arrays for one holder: what others evaluate of theirs stays theirs.
  quant::QuantizedArrays rows() const;
  /// The pages of the arrays are not needed for now.
  void let_go() const;

 private:
  /// One of the arrays in its file.
  struct InFile {
    FilePlace place;
    size_t bytes;
  };
  cpu::PackedMatrix read(
      const cpu::PackedMatrix& shape,
      int64_t first,
      int64_t count,
      std::vector<char>& buffer) const;

  const quant::QuantizedArrays rows_; // never evaluated here
  size_t count_; // rows, of all matrices
  std::vector<InFile> in_file_; // words, scales, biases; empty: not in a file
  std::weak_ptr<const cpu::RowBlocks> blocks_;
};

} // namespace zmlx
