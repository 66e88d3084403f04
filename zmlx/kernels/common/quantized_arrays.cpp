// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/quantized_arrays.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/runtime/device_name.h"

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

namespace {

constexpr std::pair<const char*, cpu::Scheme> kSchemes[] = {
    {"affine", cpu::Scheme::Affine},
    {"mxfp4", cpu::Scheme::MXFP4},
    {"nvfp4", cpu::Scheme::NVFP4},
    {"mxfp8", cpu::Scheme::MXFP8}};

// Of the modes whose fields are floats; their bits and group are fixed.
std::string why_not_float_fields(const QuantizedArrays& w) {
  const int bits = w.scheme == cpu::Scheme::MXFP8 ? 8 : 4;
  const int group_size = w.scheme == cpu::Scheme::NVFP4 ? 16 : 32;
  if (w.bits != bits || w.group_size != group_size) {
    return concat(
        name_of(w.scheme),
        " must have ",
        bits,
        " bits and groups of ",
        group_size,
        ", got ",
        w.bits,
        " and ",
        w.group_size);
  }
  if (w.scales.dtype() != mx::uint8) {
    return concat("scales must be uint8, got ", w.scales.dtype());
  }
  if (cols_of(w) % 32 != 0) {
    return concat("columns must be a multiple of 32, got ", cols_of(w));
  }
  return "";
}

} // namespace

std::optional<cpu::Scheme> scheme_named(const std::string& mode) {
  for (const auto& [name, scheme] : kSchemes) {
    if (mode == name) {
      return scheme;
    }
  }
  return std::nullopt;
}

const char* name_of(cpu::Scheme scheme) {
  return kSchemes[static_cast<int>(scheme)].first;
}

std::optional<mx::array> QuantizedArrays::mlx_biases(mx::Dtype dtype) const {
  return scheme == cpu::Scheme::Affine
      ? std::optional(mx::astype(biases, dtype))
      : std::nullopt;
}

mx::array QuantizedArrays::mlx_scales(mx::Dtype dtype) const {
  return scheme == cpu::Scheme::Affine ? mx::astype(scales, dtype) : scales;
}

mx::array QuantizedArrays::mlx_floats(mx::Dtype dtype) const {
  return mx::dequantize(
      words,
      mlx_scales(dtype),
      mlx_biases(dtype),
      group_size,
      bits,
      name_of(scheme),
      std::nullopt,
      dtype);
}

namespace {

/// The array with n zeros more in each row.
mx::array with_zeros(const mx::array& array, int n) {
  return mx::pad(array, {-1}, {0}, {n}, mx::array(0, array.dtype()));
}

mx::array quantized_product(const mx::array& x, const QuantizedArrays& w) {
  return mx::quantized_matmul(
      x,
      w.words,
      w.mlx_scales(x.dtype()),
      w.mlx_biases(x.dtype()),
      true,
      w.group_size,
      w.bits,
      name_of(w.scheme));
}

} // namespace

// MLX takes its kernel for compute capability 9.0 (qmm_sm90) only where a group
// is at least a row, supports_qmm_sm90() says: which no large matrix is. On an
// H200 every product of more than one row that went there, 20 x 64 by 192 x 64
// in groups of 64, was wrong in float32, float16 and bfloat16, and not the same
// when repeated; of longer rows, by other kernels, none was.
bool misread_on_cuda(const QuantizedArrays& w) {
  return w.scheme == cpu::Scheme::Affine && cols_of(w) <= w.group_size;
}

// The dense product would round weights to x's type, or to TF32.
mx::array product_in_two_groups(const mx::array& x, const QuantizedArrays& w) {
  return quantized_product(
      with_zeros(x, w.group_size),
      {with_zeros(w.words, w.words.shape(-1)),
       with_zeros(w.scales, 1),
       with_zeros(w.biases, 1),
       w.bits,
       w.group_size,
       w.scheme});
}

mx::array mlx_product(const mx::array& x, const QuantizedArrays& w) {
  return mx::cu::is_available() && on_a_gpu() && misread_on_cuda(w)
      ? product_in_two_groups(x, w)
      : quantized_product(x, w);
}

std::string why_unsupported(const QuantizedArrays& w) {
  if (w.scheme != cpu::Scheme::Affine) {
    return why_not_float_fields(w);
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
  auto matrix = shape_of(w);
  matrix.words = w.words.data<uint32_t>();
  matrix.scales = w.scales.data<char>();
  matrix.biases = w.biases.data<char>();
  return matrix;
}

cpu::PackedMatrix shape_of(const QuantizedArrays& w) {
  cpu::PackedMatrix matrix;
  matrix.float_type = float_type(w.scales.dtype());
  matrix.rows = w.words.shape(-2);
  matrix.cols = int64_t{w.words.shape(-1)} * 32 / w.bits;
  matrix.bits = w.bits;
  matrix.group_size = w.group_size;
  matrix.scheme = w.scheme;
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
