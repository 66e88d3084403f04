// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/matvec.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/kernels/common/matvec.cpp"
#define HWY_WANT_AVX3_DL 1
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/kernels/common/float_fields-inl.h"
#include "zmlx/kernels/common/matvec_generic-inl.h"
#if HWY_TARGET == HWY_AVX3_DL
#include "zmlx/kernels/common/matvec_float_fields-inl.h"
#include "zmlx/kernels/common/matvec_vnni-inl.h"
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
#include "zmlx/kernels/common/matvec_avx2-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

bool PrepareChunk(
    const float* x,
    int64_t columns,
    bool nibbles,
    int8_t* digits,
    float* lane_scales,
    float* block_sums) {
  return prepare_chunk(
      x, columns, nibbles, ChunkOut{digits, lane_scales, block_sums});
}

void Matvec(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    [[maybe_unused]] const RowsAhead& next) {
  if (w.scheme != Scheme::Affine) {
#if HWY_TARGET == HWY_AVX3_DL
    if (!x.needs_float()) {
      return float_fields_matvec(w, x, begin, end, y, next);
    }
#endif
    return plain_float_fields(w, x.values(), begin, end, y);
  }
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX2 || \
    HWY_TARGET == HWY_AVX3
  if (!x.needs_float()) {
    switch (w.float_type) {
      case FloatType::F32:
        return integer_matvec<FloatType::F32>(w, x, begin, end, y, next);
      case FloatType::F16:
        return integer_matvec<FloatType::F16>(w, x, begin, end, y, next);
      case FloatType::BF16:
        return integer_matvec<FloatType::BF16>(w, x, begin, end, y, next);
    }
  }
#endif
  AlignedVector<uint8_t> quants(static_cast<size_t>(w.cols));
  for (int64_t row = begin; row < end; ++row) {
    y[row - begin] = float_row(w, row, x.values(), quants.data());
  }
}

void DequantizeRow(const PackedMatrix& w, int64_t row, float* out) {
  if (w.scheme != Scheme::Affine) {
    return read_float_fields(w, row, 0, w.cols, out);
  }
  AlignedVector<uint8_t> quants(static_cast<size_t>(w.cols));
  unpack(w.row_words(row), w.bits, w.cols, quants.data());
  for (int64_t g = 0; g < w.groups_per_row(); ++g) {
    const float scale = load_float(w.row_scales(row), w.float_type, g);
    const float bias = load_float(w.row_biases(row), w.float_type, g);
    for (int64_t k = g * w.group_size; k < (g + 1) * w.group_size; ++k) {
      out[k] = scale * static_cast<float>(quants[k]) + bias;
    }
  }
}

const char* TargetName() {
  return hwy::TargetName(HWY_TARGET);
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(PrepareChunk);
HWY_EXPORT(Matvec);
HWY_EXPORT(DequantizeRow);
HWY_EXPORT(TargetName);

void PreparedVector::reserve(int64_t cols, int bits, int group_size) {
  group_size = std::max(group_size, 32); // a block; NVFP4 has halves of one
  group_size_ = group_size;
  nibbles_ = bits == 4;
  const auto chunks =
      static_cast<size_t>((cols + chunk_columns() - 1) / chunk_columns());
  values_.resize(static_cast<size_t>(cols));
  digits_.resize(chunks * static_cast<size_t>(chunk_digits()));
  lane_scales_.resize(chunks * 16);
  group_sums_.resize(static_cast<size_t>(cols / group_size));
  needs_float_.resize(chunks);
}

void PreparedVector::reserve(int64_t cols) {
  group_size_ = 0;
  values_.resize(static_cast<size_t>(cols));
}

void PreparedVector::prepare_part(const float* x, int64_t begin, int64_t end) {
  std::copy(x + begin, x + end, values_.begin() + begin);
  if (group_size_ == 0) {
    return;
  }
  const int64_t columns = chunk_columns();
  const int blocks_per_group = group_size_ / 32;
  float block_sums[4];
  for (int64_t first = begin; first < end; first += columns) {
    const int64_t chunk = first / columns;
    const int64_t here = std::min(columns, end - first);
    needs_float_[chunk] = !HWY_DYNAMIC_DISPATCH(PrepareChunk)(
        x + first,
        here,
        nibbles_,
        digits_.data() + chunk * chunk_digits(),
        lane_scales_.data() + chunk * 16,
        block_sums);
    for (int64_t b = 0; b < here / 32; ++b) {
      const int64_t block = first / 32 + b;
      float& sum = group_sums_[block / blocks_per_group];
      sum = block % blocks_per_group == 0 ? block_sums[b] : sum + block_sums[b];
    }
  }
}

void PreparedVector::prepare(
    const float* x,
    int64_t cols,
    int bits,
    int group_size) {
  reserve(cols, bits, group_size);
  prepare_part(x, 0, cols);
}

bool PreparedVector::needs_float() const {
  return std::any_of(
      needs_float_.begin(), needs_float_.end(), [](uint8_t f) { return f; });
}

void matvec(
    const PackedMatrix& w,
    const PreparedVector& x,
    int64_t begin,
    int64_t end,
    float* y,
    const RowsAhead& next) {
  HWY_DYNAMIC_DISPATCH(Matvec)(w, x, begin, end, y, next);
}

void dequantize_row(const PackedMatrix& w, int64_t row, float* out) {
  HWY_DYNAMIC_DISPATCH(DequantizeRow)(w, row, out);
}

const char* target_name() {
  return HWY_DYNAMIC_DISPATCH(TargetName)();
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
