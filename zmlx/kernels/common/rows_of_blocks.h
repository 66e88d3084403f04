// SPDX-License-Identifier: MIT
// Arrays in MLX's layout over a matrix that is kept in blocks only: they cost
// no memory until somebody evaluates them.
#pragma once

#include <array>
#include <memory>

#include "zmlx/kernels/common/quantized_arrays.h"
#include "zmlx/runtime/lazy_array.h"

namespace zmlx::quant {

/// A quantised matrix, or a stack of them, in blocks, and the arrays that it
/// was made of on demand.
class RowsOfBlocks : public std::enable_shared_from_this<RowsOfBlocks> {
 public:
  /// Packs evaluated arrays in row order. Null where they are not affine or
  /// cannot lie in blocks, see cpu::RowBlocks::fit(); float32 scales and biases
  /// may, where 16 bits hold every one of them.
  static std::shared_ptr<const RowsOfBlocks> pack(const QuantizedArrays& w);

  enum class Part { Words, Scales, Biases };
  static constexpr std::array kParts = {
      Part::Words,
      Part::Scales,
      Part::Biases};

  /// An array with the shape, type and values of the one that was packed; see
  /// lazy_array().
  mx::array rows(Part part) const;

  const std::shared_ptr<const cpu::RowBlocks>& blocks() const {
    return blocks_;
  }

 private:
  class Unpacking;
  friend std::shared_ptr<const cpu::RowBlocks> blocks_behind(
      const mx::array& array);
  RowsOfBlocks() = default;
  void unpack(Part part, mx::array& out) const;

  std::shared_ptr<const cpu::RowBlocks> blocks_;
  mx::Shape word_shape_, group_shape_;
  mx::Dtype group_dtype_ = mx::float32;
};

/// The blocks behind an array that rows() gave and nobody has evaluated since;
/// null for any other.
std::shared_ptr<const cpu::RowBlocks> blocks_behind(const mx::array& array);

/// Whether rows() gave the array and nobody has evaluated it since.
bool is_unpacking(const mx::array& array);

/// The values of a matrix's rows: ids (...) of any integer type, which count
/// from the end when they are negative, to (..., cols) of dtype. Ids outside
/// give NaN.
mx::array values_at(
    const std::shared_ptr<const cpu::RowBlocks>& matrix,
    const mx::array& ids,
    mx::Dtype dtype);

} // namespace zmlx::quant
