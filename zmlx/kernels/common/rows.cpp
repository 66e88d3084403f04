// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/rows.h"

#include <cstring>

namespace zmlx {
namespace {

template <class T>
void convert(const T* values, int64_t stride, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(values[i * stride]);
  }
}

void convert_any(
    const char* values,
    mx::Dtype dtype,
    int64_t stride,
    int64_t count,
    float* out) {
  if (dtype == mx::float32) {
    convert(reinterpret_cast<const float*>(values), stride, count, out);
  } else if (dtype == mx::float16) {
    convert(reinterpret_cast<const mx::float16_t*>(values), stride, count, out);
  } else {
    convert(
        reinterpret_cast<const mx::bfloat16_t*>(values), stride, count, out);
  }
}

} // namespace

RowReader::RowReader(const mx::array& array)
    : array_(array), width_(array.ndim() == 0 ? 1 : array.shape(-1)) {
  rows_ = width_ == 0 ? 0 : static_cast<int64_t>(array.size()) / width_;
}

int64_t RowReader::offset(int64_t r) const {
  if (array_.flags().row_contiguous) {
    return r * width_;
  }
  int64_t offset = 0;
  for (int axis = static_cast<int>(array_.ndim()) - 2; axis >= 0; --axis) {
    offset += r % array_.shape(axis) * array_.strides()[axis];
    r /= array_.shape(axis);
  }
  return offset;
}

const float* RowReader::row(int64_t r, std::vector<float>& scratch) const {
  const bool dense = width_ <= 1 || array_.strides().back() == 1;
  if (array_.dtype() == mx::float32 && dense) {
    return array_.data<float>() + offset(r);
  }
  scratch.resize(static_cast<size_t>(width_));
  copy(r, scratch.data());
  return scratch.data();
}

void RowReader::copy(int64_t r, float* out) const {
  const int64_t stride = array_.ndim() == 0 ? 1 : array_.strides().back();
  const char* values =
      array_.data<char>() + offset(r) * static_cast<int64_t>(array_.itemsize());
  if (array_.dtype() == mx::float32 && stride == 1) {
    std::memcpy(out, values, static_cast<size_t>(width_) * sizeof(float));
  } else {
    convert_any(values, array_.dtype(), stride, width_, out);
  }
}

void store_row(mx::array& out, int64_t r, const float* values, int64_t width) {
  if (out.dtype() == mx::float32) {
    float* row = out.data<float>() + r * width;
    if (row != values) {
      std::memcpy(row, values, static_cast<size_t>(width) * sizeof(float));
    }
  } else if (out.dtype() == mx::float16) {
    auto* row = out.data<mx::float16_t>() + r * width;
    for (int64_t i = 0; i < width; ++i) {
      row[i] = static_cast<mx::float16_t>(values[i]);
    }
  } else {
    auto* row = out.data<mx::bfloat16_t>() + r * width;
    for (int64_t i = 0; i < width; ++i) {
      row[i] = static_cast<mx::bfloat16_t>(values[i]);
    }
  }
}

RowsInOut::RowsInOut(const mx::array& in, mx::array& out) : out_(out) {
  const RowReader reader(in);
  const auto count = static_cast<size_t>(reader.rows());
  const auto width = static_cast<size_t>(out.shape(-1));
  const bool direct = out.dtype() == mx::float32;
  scratch_.resize(count);
  results_.resize(direct ? 0 : count * width);
  float* const results = direct ? out.data<float>() : results_.data();
  for (size_t i = 0; i < count; ++i) {
    x.push_back(reader.row(static_cast<int64_t>(i), scratch_[i]));
    y.push_back(results + i * width);
  }
}

void RowsInOut::store() {
  for (size_t i = 0; !results_.empty() && i < y.size(); ++i) {
    store_row(out_, static_cast<int64_t>(i), y[i], out_.shape(-1));
  }
}

void to_float(const void* values, mx::Dtype dtype, int64_t count, float* out) {
  convert_any(static_cast<const char*>(values), dtype, 1, count, out);
}

} // namespace zmlx
