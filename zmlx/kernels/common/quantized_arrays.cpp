// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/quantized_arrays.h"

#include <algorithm>

#include "zmlx/base/error.h"

namespace zmlx::quant {

bool is_float(mx::Dtype dtype) {
  return dtype == mx::float32 || dtype == mx::float16 || dtype == mx::bfloat16;
}

int rows_of(const AnyArrays& w) {
  const auto* packed = std::get_if<QuantizedArrays>(&w);
  return (packed ? packed->words : std::get<mx::array>(w)).shape(-2);
}

int cols_of(const AnyArrays& w) {
  if (const auto* packed = std::get_if<QuantizedArrays>(&w)) {
    return static_cast<int>(
        int64_t{packed->words.shape(-1)} * 32 / packed->bits);
  }
  return std::get<mx::array>(w).shape(-1);
}

mx::array row_contiguous(mx::array array) {
  array.eval();
  return array.flags().row_contiguous ? array : mx::contiguous(array);
}

std::string why_unsupported(const QuantizedArrays& w, const std::string& mode) {
  if (mode != "affine") {
    return "the mode must be affine, got " + mode;
  }
  static constexpr int kBits[] = {2, 3, 4, 5, 6, 8};
  if (std::find(std::begin(kBits), std::end(kBits), w.bits) ==
      std::end(kBits)) {
    return concat("bits must be 2, 3, 4, 5, 6 or 8, got ", w.bits);
  }
  if (w.group_size != 32 && w.group_size != 64 && w.group_size != 128) {
    return concat("the group size must be 32, 64 or 128, got ", w.group_size);
  }
  if (!is_float(w.scales.dtype()) || w.biases.dtype() != w.scales.dtype()) {
    return "scales and biases must have one floating-point type";
  }
  return "";
}

namespace {

cpu::FloatType float_type(mx::Dtype dtype) {
  return dtype == mx::float32 ? cpu::FloatType::F32
      : dtype == mx::float16  ? cpu::FloatType::F16
                              : cpu::FloatType::BF16;
}

} // namespace

cpu::PackedMatrix view(const QuantizedArrays& w) {
  return w.blocks ? w.blocks->matrix() : view_of_rows(w);
}

cpu::PackedMatrix view_of_rows(const QuantizedArrays& w) {
  cpu::PackedMatrix matrix;
  matrix.words = w.words.data<uint32_t>();
  matrix.scales = w.scales.data<char>();
  matrix.biases = w.biases.data<char>();
  matrix.float_type = float_type(w.scales.dtype());
  matrix.rows = w.words.shape(-2);
  matrix.cols = int64_t{w.words.shape(-1)} * 32 / w.bits;
  matrix.bits = w.bits;
  matrix.group_size = w.group_size;
  return matrix;
}

cpu::DenseMatrix dense_view(const mx::array& weight) {
  return {
      weight.data<char>(),
      float_type(weight.dtype()),
      weight.shape(-2),
      weight.shape(-1)};
}

} // namespace zmlx::quant
