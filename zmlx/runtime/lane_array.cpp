// SPDX-License-Identifier: MIT
#include "zmlx/runtime/lane_array.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "zmlx/runtime/lane_kernels.h"

namespace zmlx::cpu {
namespace {

// Elements gathered at a time before they are converted.
constexpr int64_t kGathered = 256;

// f(T{}) for the C++ type of a dtype; the 16-bit floats come as uint16_t.
template <class F>
void with_type(mx::Dtype dtype, const F& f) {
  switch (dtype) {
    case mx::bool_:
      return f(bool{});
    case mx::uint8:
      return f(uint8_t{});
    case mx::uint16:
    case mx::float16:
    case mx::bfloat16:
      return f(uint16_t{});
    case mx::uint32:
      return f(uint32_t{});
    case mx::uint64:
      return f(uint64_t{});
    case mx::int8:
      return f(int8_t{});
    case mx::int16:
      return f(int16_t{});
    case mx::int32:
      return f(int32_t{});
    case mx::int64:
      return f(int64_t{});
    case mx::float64:
      return f(double{});
    default:
      return f(float{});
  }
}

template <class T>
void to_lanes(mx::Dtype dtype, const T* from, int64_t count, float* out) {
  if constexpr (std::is_same_v<T, float>) {
    std::memcpy(out, from, count * sizeof(float));
    return;
  } else if constexpr (std::is_same_v<T, uint16_t>) {
    if (dtype == mx::float16) {
      return from_half(from, count, out);
    }
    if (dtype == mx::bfloat16) {
      return from_bfloat(from, count, out);
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(from[i]);
  }
}

template <class T>
T from_lane(float lane) {
  if constexpr (std::is_same_v<T, bool>) {
    return lane != 0;
  } else if constexpr (std::is_floating_point_v<T>) {
    return lane;
  } else {
    // 2^n, the first value above T's.
    constexpr float kEnd =
        2.0f * static_cast<float>(T{1} << (std::numeric_limits<T>::digits - 1));
    return std::isnan(lane) ? T{0}
        : lane >= kEnd      ? std::numeric_limits<T>::max()
        : lane <= float(std::numeric_limits<T>::min())
        ? std::numeric_limits<T>::min()
        : static_cast<T>(lane);
  }
}

template <class T>
void from_lanes(mx::Dtype dtype, const float* from, int64_t count, T* out) {
  if constexpr (std::is_same_v<T, float>) {
    std::memcpy(out, from, count * sizeof(float));
    return;
  } else if constexpr (std::is_same_v<T, uint16_t>) {
    if (dtype == mx::float16) {
      return to_half(from, count, out);
    }
    if (dtype == mx::bfloat16) {
      return to_bfloat(from, count, out);
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    out[i] = from_lane<T>(from[i]);
  }
}

} // namespace

Layout Layout::broadcast(const mx::array& array, const mx::Shape& shape) {
  Layout layout;
  const int missing = static_cast<int>(shape.size() - array.ndim());
  for (int axis = 0; axis < static_cast<int>(shape.size()); ++axis) {
    const int own = axis - missing;
    layout.lengths.push_back(shape[axis]);
    layout.strides.push_back(
        own < 0 || array.shape(own) == 1 ? 0 : array.strides()[own]);
  }
  return layout;
}

Layout Layout::contiguous(const mx::Shape& shape) {
  Layout layout;
  layout.lengths.assign(shape.begin(), shape.end());
  layout.strides.resize(shape.size());
  int64_t stride = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    layout.strides[axis] = stride;
    stride *= shape[axis];
  }
  return layout;
}

void Layout::move_last(int axis) {
  std::rotate(
      lengths.begin() + axis, lengths.begin() + axis + 1, lengths.end());
  std::rotate(
      strides.begin() + axis, strides.begin() + axis + 1, strides.end());
}

void Layout::move_first(int axis) {
  std::rotate(
      lengths.begin(), lengths.begin() + axis, lengths.begin() + axis + 1);
  std::rotate(
      strides.begin(), strides.begin() + axis, strides.begin() + axis + 1);
}

void Layout::simplify() {
  Layout kept;
  for (size_t axis = 0; axis < lengths.size(); ++axis) {
    if (lengths[axis] == 1) {
      continue;
    }
    if (!kept.lengths.empty() &&
        kept.strides.back() == strides[axis] * lengths[axis]) {
      kept.lengths.back() *= lengths[axis];
      kept.strides.back() = strides[axis];
    } else {
      kept.lengths.push_back(lengths[axis]);
      kept.strides.push_back(strides[axis]);
    }
  }
  if (kept.lengths.empty()) {
    kept.lengths.push_back(1);
    kept.strides.push_back(0);
  }
  *this = std::move(kept);
}

LaneArray::LaneArray(const mx::array& array, Layout layout)
    : layout_(std::move(layout)),
      dtype_(array.dtype()),
      data_(const_cast<char*>(array.data<char>())) {
  layout_.simplify();
}

// f(offset of the first element, elements, elements done before) for each
// stretch of the innermost axis.
template <class F>
void LaneArray::for_each_run(int64_t begin, int64_t count, const F& f) const {
  const auto& [lengths, strides] = layout_;
  const size_t inner = lengths.size() - 1;
  for (int64_t done = 0; done < count;) {
    int64_t rest = begin + done, offset = 0, at = 0;
    for (size_t axis = inner + 1; axis-- > 0;) {
      const int64_t index = axis == 0 ? rest : rest % lengths[axis];
      rest /= lengths[axis];
      offset += index * strides[axis];
      at = axis == inner ? index : at;
    }
    const int64_t run = std::min(count - done, lengths[inner] - at);
    f(offset, run, done);
    done += run;
  }
}

float* LaneArray::direct(int64_t begin, int64_t count) const {
  const auto inner = layout_.lengths.back();
  if (dtype_ != mx::float32 || layout_.strides.back() != 1 ||
      (layout_.lengths.size() > 1 && begin % inner + count > inner)) {
    return nullptr;
  }
  float* address = nullptr;
  for_each_run(begin, count, [&](int64_t offset, int64_t, int64_t) {
    address = reinterpret_cast<float*>(data_) + offset;
  });
  return address;
}

void LaneArray::read(int64_t begin, int64_t count, float* out) const {
  const int64_t stride = layout_.strides.back();
  with_type(dtype_, [&](auto type) {
    using T = decltype(type);
    const auto* data = reinterpret_cast<const T*>(data_);
    for_each_run(begin, count, [&](int64_t first, int64_t run, int64_t done) {
      float* to = out + done;
      if (stride == 1) {
        return to_lanes(dtype_, data + first, run, to);
      }
      if (stride == 0) {
        to_lanes(dtype_, data + first, 1, to);
        std::fill_n(to + 1, run - 1, *to);
        return;
      }
      T gathered[kGathered];
      for (int64_t i = 0; i < run; i += kGathered) {
        const int64_t part = std::min(kGathered, run - i);
        for (int64_t k = 0; k < part; ++k) {
          gathered[k] = data[first + (i + k) * stride];
        }
        to_lanes(dtype_, gathered, part, to + i);
      }
    });
  });
}

void LaneArray::write(int64_t begin, int64_t count, const float* lanes) const {
  const int64_t stride = layout_.strides.back();
  with_type(dtype_, [&](auto type) {
    using T = decltype(type);
    auto* data = reinterpret_cast<T*>(data_);
    for_each_run(begin, count, [&](int64_t first, int64_t run, int64_t done) {
      const float* from = lanes + done;
      if (stride == 1 || run == 1) {
        return from_lanes(dtype_, from, run, data + first);
      }
      T converted[kGathered];
      for (int64_t i = 0; i < run; i += kGathered) {
        const int64_t part = std::min(kGathered, run - i);
        from_lanes(dtype_, from + i, part, converted);
        for (int64_t k = 0; k < part; ++k) {
          data[first + (i + k) * stride] = converted[k];
        }
      }
    });
  });
}

} // namespace zmlx::cpu
