// SPDX-License-Identifier: MIT
// Matrices for tests of matvec() and gemm(), and the weights that they stand
// for, read bit by bit.
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include <hwy/targets.h>

#include "zmlx/kernels/common/packed_matrix.h"
#include "zmlx/kernels/common/rows.h"

namespace zmlx::cpu {

struct Case {
  int64_t rows, cols;
  int bits, group_size;
  mx::Dtype dtype = mx::bfloat16;
};

class Weights {
 public:
  /// Of random fields, or of the largest ones.
  explicit Weights(const Case& c, bool largest = false) : case_(c) {
    std::mt19937 rng(c.bits * 1000 + static_cast<int>(c.cols));
    words_.resize(static_cast<size_t>(c.rows * c.cols * c.bits / 32));
    for (auto& word : words_) {
      word = largest ? ~0u : static_cast<uint32_t>(rng());
    }
    const int groups = static_cast<int>(c.rows * c.cols / c.group_size);
    auto key = mx::random::key(7);
    scales_ = mx::astype(
        mx::random::uniform(0.01f, 0.1f, {groups}, mx::float32, key), c.dtype);
    biases_ = mx::astype(mx::negative(scales_ * mx::array(7.3f)), c.dtype);
    mx::eval(scales_, biases_);
  }

  PackedMatrix matrix() const {
    const FloatType type = case_.dtype == mx::float32 ? FloatType::F32
        : case_.dtype == mx::float16                  ? FloatType::F16
                                                      : FloatType::BF16;
    return {
        words_.data(),
        scales_.data<char>(),
        biases_.data<char>(),
        type,
        case_.rows,
        case_.cols,
        case_.bits,
        case_.group_size};
  }

  struct Parts {
    double scaled, bias; // the weight is their sum
  };

  Parts value(int64_t row, int64_t col) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(words_.data());
    const int64_t first = (row * case_.cols + col) * case_.bits;
    int quant = 0;
    for (int64_t bit = 0; bit < case_.bits; ++bit) {
      const int64_t at = first + bit;
      quant |= (bytes[at / 8] >> (at % 8) & 1) << bit;
    }
    const int64_t group = (row * case_.cols + col) / case_.group_size;
    float scale, bias;
    const auto size = case_.dtype.size();
    to_float(scales_.data<char>() + group * size, case_.dtype, 1, &scale);
    to_float(biases_.data<char>() + group * size, case_.dtype, 1, &bias);
    return {double{scale} * quant, bias};
  }

 private:
  Case case_;
  std::vector<uint32_t> words_;
  mx::array scales_{0.0f}, biases_{0.0f};
};

inline std::vector<float> normal(int64_t count, int seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(static_cast<size_t>(count));
  for (auto& value : values) {
    value = distribution(rng);
  }
  return values;
}

constexpr int kAllBits[] = {2, 3, 4, 5, 6, 8};

inline std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (int bits : kAllBits) {
    for (int group : {32, 64, 128}) {
      for (int64_t cols : {128, 384, 640, 1792}) {
        cases.push_back({7, cols, bits, group});
      }
    }
    cases.push_back({5, 32, bits, 32, mx::float16});
    cases.push_back({1, 96, bits, 32, mx::float32});
    for (auto type : {mx::float16, mx::float32}) {
      cases.push_back({6, 384, bits, 128, type});
    }
    cases.push_back({3, 320, bits, 64, mx::float16});
    cases.push_back({3, 320, bits, 64, mx::float32});
  }
  return cases;
}

/// Matrices that can lie in blocks.
inline std::vector<Case> block_cases() {
  std::vector<Case> cases;
  for (int bits : {4, 8}) {
    for (int group : {32, 64, 128}) {
      for (int64_t cols : {128, 640, 1792}) {
        for (auto type : {mx::bfloat16, mx::float16}) {
          cases.push_back({64, cols, bits, group, type});
        }
      }
    }
    cases.push_back({32, 32, bits, 32});
    cases.push_back({96, 320, bits, 64});
  }
  return cases;
}

/// Every instruction set of this machine.
inline std::vector<int64_t> targets() {
  std::vector<int64_t> targets;
  for (int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    targets.push_back(rest & -rest);
  }
  return targets;
}

} // namespace zmlx::cpu
