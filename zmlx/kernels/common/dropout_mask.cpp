// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/dropout_mask.h"

#include <cmath>
#include <cstdint>

#include <fmt/format.h>

#include "zmlx/authoring/elementwise.h"
#include "zmlx/base/error.h"

namespace zmlx::dropout_mask {
namespace {

constexpr int kMost = 1 << 24; // whole numbers that a float32 holds
constexpr uint32_t kWeyl = 0x9e3779b1; // 2^32 / golden ratio, odd
constexpr uint32_t kFirst = 0x7feb352d, kSecond = 0x846ca68b;

// The finisher of SplitMix64: near seeds give far words.
uint64_t scrambled(uint64_t seed) {
  seed += 0x9e3779b97f4a7c15;
  seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9;
  seed = (seed ^ (seed >> 27)) * 0x94d049bb133111eb;
  return seed ^ (seed >> 31);
}

int32_t as_int(uint32_t word) {
  return static_cast<int32_t>(word);
}

// int32 shifts keep the sign, hence the masks.
std::string hash_text() {
  return fmt::format(
      "inline int mixed(int x, int key) {{\n"
      "  x = (x ^ ((x >> 16) & 0xffff)) * {};\n"
      "  x = x ^ key;\n"
      "  x = (x ^ ((x >> 15) & 0x1ffff)) * {};\n"
      "  return x ^ ((x >> 16) & 0xffff);\n"
      "}}\n",
      as_int(kFirst),
      as_int(kSecond));
}

// 24 bits of the hash of a row's number and 64 bits of seed.
Elementwise key_operation(int shift) {
  return map(
      "dropout",
      fmt::format(
          "float((mixed((int)row * {} + (int)s0 + ((int)s1 << 16), "
          "(int)s2 + ((int)s3 << 16)) >> {}) & 0xffffff)",
          as_int(kWeyl),
          shift),
      {"row", "s0", "s1", "s2", "s3"},
      {.header = hash_text()});
}

int rows_of(const mx::Shape& shape) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) {
    rows *= shape[i];
  }
  return static_cast<int>(std::min<int64_t>(rows, INT32_MAX));
}

mx::Shape key_shape(mx::Shape shape) {
  shape.back() = 1;
  return shape;
}

double threshold(double p) {
  return std::round(p * kMost);
}

} // namespace

Places places(const char* op, const mx::array& x, uint64_t seed) {
  const int rows = rows_of(x.shape());
  if (rows > kMost || x.shape(-1) > kMost) {
    invalid(
        op,
        "x must have at most 2^24 rows of at most 2^24, got ",
        x.shape(),
        '.');
  }
  static const Elementwise first_key = key_operation(0);
  static const Elementwise second_key = key_operation(8);
  const uint64_t words = scrambled(seed);
  const mx::array row = mx::reshape(
      mx::arange(0.0, rows, 1.0, mx::float32), key_shape(x.shape()));
  std::vector<mx::array> inputs = {row};
  for (int shift = 0; shift < 64; shift += 16) {
    inputs.emplace_back(static_cast<float>((words >> shift) & 0xffff));
  }
  return {
      mx::arange(0.0, x.shape(-1), 1.0, mx::float32),
      first_key(inputs),
      second_key(inputs)};
}

std::string text(double p) {
  const double drop = threshold(p);
  return fmt::format(
      "{}inline float keep(float column, float first, float second) {{\n"
      "  int x = mixed((int)column * {} + (int)first, (int)second);\n"
      "  return ((x >> 8) & 0xffffff) < {} ? 0.0f : {:.9e}f;\n"
      "}}\n",
      hash_text(),
      as_int(kWeyl),
      static_cast<int>(drop),
      static_cast<float>(1 / (1 - p)));
}

void check(const char* op, double p) {
  if (!(p >= 0 && p < 1)) {
    invalid(op, "p must be at least 0 and below 1, got ", p, '.');
  }
}

mx::array
reference(const mx::Shape& shape, double p, uint64_t seed, mx::Dtype dtype) {
  const auto word = [](uint64_t value) {
    return mx::array(static_cast<uint32_t>(value), mx::uint32);
  };
  const auto shifted = [&](const mx::array& x, uint64_t bits) {
    return mx::bitwise_xor(x, mx::right_shift(x, word(bits)));
  };
  const auto mixed = [&](mx::array x, const mx::array& key) {
    x = mx::bitwise_xor(shifted(x, 16) * word(kFirst), key);
    return shifted(shifted(x, 15) * word(kSecond), 16);
  };
  const auto low = [&](const mx::array& x) {
    return mx::bitwise_and(x, word(0xffffff));
  };
  const uint64_t words = scrambled(seed);
  const mx::array row = mx::reshape(
      mx::arange(0.0, rows_of(shape), 1.0, mx::uint32), key_shape(shape));
  const mx::array key =
      mixed(row * word(kWeyl) + word(words & 0xffffffff), word(words >> 32));
  const mx::array column = mx::arange(0.0, shape.back(), 1.0, mx::uint32);
  const mx::array bits = mx::right_shift(
      mixed(
          column * word(kWeyl) + low(key), low(mx::right_shift(key, word(8)))),
      word(8));
  return mx::where(
      bits < word(static_cast<uint64_t>(threshold(p))),
      mx::array(0, dtype),
      mx::array(1 / (1 - p), dtype));
}

} // namespace zmlx::dropout_mask
