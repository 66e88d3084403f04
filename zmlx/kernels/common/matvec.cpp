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
#include "zmlx/kernels/common/matvec_blocks-inl.h"
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

bool PrepareBlockGroup(
    [[maybe_unused]] const float* x,
    [[maybe_unused]] int64_t columns,
    [[maybe_unused]] bool nibbles,
    [[maybe_unused]] int32_t* out) {
#if HWY_TARGET == HWY_AVX3_DL
  return prepare_block_group(x, columns, nibbles, out);
#else
  return false;
#endif
}

void MultiplyBlocks(
    [[maybe_unused]] const PackedMatrix& w,
    [[maybe_unused]] const int32_t* const* digits,
    [[maybe_unused]] int64_t count,
    [[maybe_unused]] int64_t begin,
    [[maybe_unused]] int64_t end,
    [[maybe_unused]] float* const* y,
    [[maybe_unused]] const RowsAhead& next) {
#if HWY_TARGET == HWY_AVX3_DL
  multiply_ranges(w, digits, count, begin, end, y, next);
#endif
}

bool PrefersBlocks() {
  return HWY_TARGET == HWY_AVX3_DL;
}

void FloatMatvec(
    const PackedMatrix& w,
    const float* x,
    int64_t begin,
    int64_t end,
    float* y) {
  if (w.scheme != Scheme::Affine) {
    return plain_float_fields(w, x, begin, end, y);
  }
  AlignedVector<uint8_t> quants(static_cast<size_t>(w.cols));
  for (int64_t row = begin; row < end; ++row) {
    y[row - begin] = float_row(w, row, x, quants.data());
  }
}

void BlocksMatvec(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    const RowsAhead& next) {
  if (std::any_of(x, x + count, [](auto* one) { return one->needs_float(); })) {
    // One by one; what has no integers in floats.
    for (int64_t i = 0; i < count; ++i) {
      if (x[i]->needs_float()) {
        FloatMatvec(w, x[i]->values(), begin, end, y[i]);
      } else {
        BlocksMatvec(w, x + i, 1, begin, end, y + i, next);
      }
    }
    return;
  }
  constexpr int64_t kMost = 64;
  const int32_t* digits[kMost];
  for (int64_t first = 0; first < count; first += kMost) {
    const int64_t here = std::min(kMost, count - first);
    for (int64_t i = 0; i < here; ++i) {
      digits[i] = reinterpret_cast<const int32_t*>(x[first + i]->digits());
    }
    MultiplyBlocks(w, digits, here, begin, end, y + first, next);
  }
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
    return FloatMatvec(w, x.values(), begin, end, y);
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
  FloatMatvec(w, x.values(), begin, end, y);
}

void DequantizeRow(const PackedMatrix& w, int64_t row, float* out) {
  if (w.scheme != Scheme::Affine) {
    return read_float_fields(w, row, 0, w.cols, out);
  }
  AlignedVector<uint8_t> quants(static_cast<size_t>(w.cols));
  unpack_row(w, row, 0, w.cols, quants.data());
  for (int64_t g = 0; g < w.groups_per_row(); ++g) {
    const auto [scale, bias] = ScaleAndBias(w, row, g);
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
HWY_EXPORT(PrepareBlockGroup);
HWY_EXPORT(MultiplyBlocks);
HWY_EXPORT(PrefersBlocks);
HWY_EXPORT(BlocksMatvec);
HWY_EXPORT(Matvec);
HWY_EXPORT(DequantizeRow);
HWY_EXPORT(TargetName);

namespace {

// Rows of a matrix that stay in L1 and L2 while several vectors pass over them.
constexpr int64_t kRowsAPass = 16;

} // namespace

void PreparedVector::reserve(
    int64_t cols,
    int bits,
    int group_size,
    bool in_blocks) {
  if (!in_blocks) {
    group_size = std::max(group_size, 32); // NVFP4 has halves of one
  }
  group_size_ = group_size;
  nibbles_ = has_nibble_digits(bits);
  in_blocks_ = in_blocks;
  const int64_t parts = in_blocks
      ? cols / group_size
      : (cols + chunk_columns() - 1) / chunk_columns();
  values_.resize(static_cast<size_t>(cols));
  digits_.resize(
      static_cast<size_t>(
          in_blocks ? 4 * parts * prepared_group_words(group_size)
                    : parts * chunk_digits()));
  scales_.resize(static_cast<size_t>(in_blocks ? 0 : parts * 16));
  group_sums_.resize(static_cast<size_t>(in_blocks ? 0 : cols / group_size));
  needs_float_.resize(static_cast<size_t>(parts));
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
  if (in_blocks_) {
    prepare_groups(x, begin, end);
  } else {
    prepare_chunks(x, begin, end);
  }
}

void PreparedVector::prepare_groups(
    const float* x,
    int64_t begin,
    int64_t end) {
  auto* digits = reinterpret_cast<int32_t*>(digits_.data());
  for (int64_t first = begin; first < end; first += group_size_) {
    const int64_t group = first / group_size_;
    needs_float_[group] = !HWY_DYNAMIC_DISPATCH(PrepareBlockGroup)(
        x + first,
        group_size_,
        nibbles_,
        digits + group * prepared_group_words(group_size_));
  }
}

void PreparedVector::prepare_chunks(
    const float* x,
    int64_t begin,
    int64_t end) {
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
        scales_.data() + chunk * 16,
        block_sums);
    for (int64_t b = 0; b < here / 32; ++b) {
      const int64_t block = first / 32 + b;
      float& sum = group_sums_[block / blocks_per_group];
      sum = block % blocks_per_group == 0 ? block_sums[b] : sum + block_sums[b];
    }
  }
}

void PreparedVector::prepare(const float* x, const PackedMatrix& w) {
  reserve(w.cols, w.bits, w.group_size, w.in_blocks);
  prepare_part(x, 0, w.cols);
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
  if (w.in_blocks) {
    const PreparedVector* const vectors[] = {&x};
    HWY_DYNAMIC_DISPATCH(BlocksMatvec)(w, vectors, 1, begin, end, &y, next);
  } else {
    HWY_DYNAMIC_DISPATCH(Matvec)(w, x, begin, end, y, next);
  }
}

void matvec(
    const PackedMatrix& w,
    const PreparedVector* const* x,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    const RowsAhead& next) {
  if (w.in_blocks) {
    HWY_DYNAMIC_DISPATCH(BlocksMatvec)(w, x, count, begin, end, y, next);
    return;
  }
  const int64_t step = count == 1 ? end - begin : kRowsAPass;
  for (int64_t row = begin; row < end; row += step) {
    const int64_t stop = std::min(end, row + step);
    for (int64_t i = 0; i < count; ++i) {
      HWY_DYNAMIC_DISPATCH(Matvec)(
          w,
          *x[i],
          row,
          stop,
          y[i] + (row - begin),
          i + 1 < count    ? RowsAhead()
              : stop < end ? RowsAhead(w, stop)
                           : next);
    }
  }
}

void multiply_blocks(
    const PackedMatrix& w,
    const int32_t* const* digits,
    int64_t count,
    int64_t begin,
    int64_t end,
    float* const* y,
    const RowsAhead& next) {
  HWY_DYNAMIC_DISPATCH(MultiplyBlocks)(w, digits, count, begin, end, y, next);
}

bool prefers_blocks() {
  return HWY_DYNAMIC_DISPATCH(PrefersBlocks)();
}

void dequantize_row(const PackedMatrix& w, int64_t row, float* out) {
  HWY_DYNAMIC_DISPATCH(DequantizeRow)(w, row, out);
}

const char* target_name() {
  return HWY_DYNAMIC_DISPATCH(TargetName)();
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
