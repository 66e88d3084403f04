// SPDX-License-Identifier: MIT
#include "zmlx/authoring/difference.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

// Row-contiguous on the CPU, in this type.
mx::array on_cpu(const mx::array& array, mx::Dtype dtype) {
  mx::StreamContext cpu{mx::Device(mx::Device::cpu)};
  mx::array copy = mx::contiguous(mx::astype(array, dtype));
  copy.eval();
  return copy;
}

// "(3,17)": where the i-th value of a row-contiguous array is.
mx::Shape place_of(int64_t i, const mx::Shape& shape) {
  mx::Shape place(shape.size());
  for (size_t axis = shape.size(); axis-- > 0;) {
    place[axis] = static_cast<mx::ShapeElem>(i % shape[axis]);
    i /= shape[axis];
  }
  return place;
}

double largest_of(const double* values, size_t count) {
  double largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const double size = std::abs(values[i]);
    largest = std::isfinite(size) ? std::max(largest, size) : largest;
  }
  return largest;
}

// How many times the allowed error; 0 when exactly equal.
double excess(double got, double want, double allowed) {
  if (got == want || (std::isnan(got) && std::isnan(want))) {
    return 0;
  }
  if (!std::isfinite(got) || !std::isfinite(want)) {
    return INFINITY;
  }
  const double off = std::abs(got - want);
  return allowed > 0 ? off / allowed : INFINITY;
}

} // namespace

double largest_finite(const mx::array& array) {
  const mx::array values = on_cpu(array, mx::float64);
  return largest_of(values.data<double>(), values.size());
}

double epsilon_of(mx::Dtype dtype) {
  return dtype == mx::float16 ? 0x1p-10
      : dtype == mx::bfloat16 ? 0x1p-7
      : dtype == mx::float64  ? 0x1p-52
                              : 0x1p-23;
}

std::string difference(
    const mx::array& got,
    const mx::array& want,
    const Tolerance& tolerance) {
  if (got.shape() != want.shape()) {
    return concat("shape must be ", want.shape(), ", got ", got.shape(), '.');
  }
  // Every integer that a test would hold is exact in float64.
  const mx::array a = on_cpu(got, mx::float64), b = on_cpu(want, mx::float64);
  const double* x = a.data<double>();
  const double* y = b.data<double>();
  const bool exact = !mx::issubdtype(got.dtype(), mx::inexact);
  const double floor = exact ? 0
                             : tolerance.absolute +
          tolerance.of_largest *
              std::max(tolerance.largest, largest_of(y, b.size()));
  const double relative = exact ? 0 : tolerance.relative;
  size_t differing = 0, worst = 0;
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double e = excess(x[i], y[i], floor + relative * std::abs(y[i]));
    differing += e > 1;
    if (e > most) {
      most = e;
      worst = i;
    }
  }
  if (differing == 0) {
    return "";
  }
  return concat(
      differing,
      " of ",
      a.size(),
      " values differ; the worst at ",
      place_of(static_cast<int64_t>(worst), got.shape()),
      ": got ",
      x[worst],
      ", want ",
      y[worst],
      " (off by ",
      std::abs(x[worst] - y[worst]),
      ", allowed ",
      floor + relative * std::abs(y[worst]),
      ").");
}

std::string bit_difference(const mx::array& got, const mx::array& want) {
  if (got.shape() != want.shape() || got.dtype() != want.dtype()) {
    return concat(
        "must be ",
        want.dtype(),
        ' ',
        want.shape(),
        ", got ",
        got.dtype(),
        ' ',
        got.shape(),
        '.');
  }
  const mx::array a = on_cpu(got, got.dtype()), b = on_cpu(want, want.dtype());
  const char* x = a.data<char>();
  const char* y = b.data<char>();
  size_t differing = 0, first = 0;
  for (size_t i = a.size(); i-- > 0;) {
    if (std::memcmp(x + i * a.itemsize(), y + i * a.itemsize(), a.itemsize())) {
      ++differing;
      first = i;
    }
  }
  return differing == 0 ? ""
                        : concat(
                              differing,
                              " of ",
                              a.size(),
                              " values differ in their bits, the first at ",
                              place_of(static_cast<int64_t>(first), a.shape()),
                              '.');
}

} // namespace zmlx
