// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/synth_values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include <xxhash.h>

namespace zmlx {
namespace {

namespace mx = mlx::core;

constexpr size_t kPieceBytes = size_t(1) << 20;

// SplitMix64 (Steele, Lea, Flood 2014): a counter and a mixing function.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [0.8, 1.2], by integers: a product and a sum in floats would be fused
  // on some machines and not on others.
  float near_one() {
    const uint64_t steps = next() >> 40; // of 2^24
    return static_cast<float>((4 * (uint64_t(1) << 24) + 2 * steps) / 5) *
        0x1p-24f;
  }
  // Nearly normal, of variance 1: twelve uniform numbers less six.
  float normal() {
    int32_t sum = 0;
    for (int i = 0; i < 3; ++i) {
      const uint64_t bits = next();
      for (int j = 0; j < 4; ++j) {
        sum += static_cast<int32_t>(bits >> (16 * j) & 0xffff);
      }
    }
    return static_cast<float>(sum) * 0x1p-16f - 6;
  }

 private:
  uint64_t state_;
};

// Rounds to nearest, ties to even; the values here are finite.
uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float from_bfloat16(uint16_t value) {
  return std::bit_cast<float>(uint32_t(value) << 16);
}

size_t count_of(const mx::Shape& shape) {
  size_t count = 1;
  for (const auto dim : shape) {
    count *= static_cast<size_t>(dim);
  }
  return count;
}

// Calls make() count times and hands the results on in pieces.
template <class T, class Make>
void emit(
    size_t count,
    const std::function<void(const void*, size_t)>& sink,
    Make make) {
  constexpr size_t kMost = kPieceBytes / sizeof(T);
  std::vector<T> piece(std::min(count, kMost));
  for (size_t done = 0; done < count; done += piece.size()) {
    piece.resize(std::min(count - done, kMost));
    for (auto& value : piece) {
      value = make();
    }
    sink(piece.data(), piece.size() * sizeof(T));
  }
}

// The standard deviation of a random code of a mode, as made below.
float code_deviation(const Quantization& packing) {
  const float steps = static_cast<float>((1 << packing.bits) - 1);
  return packing.mode == "affine" ? steps / std::sqrt(12.0f)
      : packing.mode == "mxfp8"   ? 0.598f // e4m3 codes 0 to 63, both signs
                                  : 2.93f; // every e2m1 code
}

// Weights are spread as a uniform number within 1/sqrt(inputs), whatever the
// packing, so an output is about 0.6 times its inputs.
float scale_of(const SynthWeight& weight) {
  const float inputs = static_cast<float>(weight.shape.back());
  return 1 / std::sqrt(3 * inputs) / code_deviation(weight.packing);
}

// A scale's code near the value: e8m0 (2^(code - 127)) for the mx modes, e4m3
// for nvfp4.
uint8_t scale_code(const Quantization& packing, float value) {
  if (packing.mode != "nvfp4") {
    int exponent = 0;
    const bool low = std::frexp(value, &exponent) < std::sqrt(0.5f);
    return static_cast<uint8_t>(127 + exponent - low);
  }
  if (value < 0x1p-6f) { // below it e4m3 counts in steps of 2^-9
    return static_cast<uint8_t>(std::max(1L, std::lround(value * 512)));
  }
  int exponent = 0;
  const float mantissa = 2 * std::frexp(value, &exponent); // [1, 2)
  const long code = (exponent - 1 + 7) * 8 + std::lround((mantissa - 1) * 8);
  return static_cast<uint8_t>(std::clamp(code, 1L, 0x7eL));
}

void make_codes(
    const SynthWeight& weight,
    Random random,
    const std::function<void(const void*, size_t)>& sink) {
  // 8-bit floats stay below 2 and so away from NaN; other codes take any bits.
  const uint64_t mask =
      weight.packing.mode == "mxfp8" ? 0xbfbfbfbfbfbfbfbfu : ~uint64_t(0);
  const size_t words = count_of(weight.shape) / 32 * weight.packing.bits;
  emit<uint64_t>(words / 2, sink, [&] { return random.next() & mask; });
  if (words % 2 != 0) {
    const auto last = static_cast<uint32_t>(random.next() & mask);
    sink(&last, sizeof last);
  }
}

// Scales, or the biases that centre the codes on zero, from the same draws.
void make_scales(
    const SynthWeight& weight,
    SynthPart part,
    Random random,
    const std::function<void(const void*, size_t)>& sink) {
  const Quantization& packing = weight.packing;
  const size_t count = count_of(weight.shape) / packing.group_size;
  const float scale = scale_of(weight);
  const auto draw = [&] { return random.near_one() * scale; };
  if (packing.mode != "affine") {
    emit<uint8_t>(count, sink, [&] { return scale_code(packing, draw()); });
    return;
  }
  const float centre = static_cast<float>((1 << packing.bits) - 1) / 2;
  emit<uint16_t>(count, sink, [&] {
    const uint16_t value = to_bfloat16(draw());
    return part == SynthPart::kScales
        ? value
        : to_bfloat16(-from_bfloat16(value) * centre);
  });
}

} // namespace

void make_values(
    const SynthWeight& weight,
    SynthPart part,
    uint64_t seed,
    const std::function<void(const void*, size_t)>& sink) {
  const std::string stream =
      weight.name + (part == SynthPart::kWeight ? ".weight" : "");
  Random random(XXH3_64bits_withSeed(stream.data(), stream.size(), seed));
  if (part == SynthPart::kWeight) {
    make_codes(weight, random, sink);
  } else if (part != SynthPart::kPlain) {
    make_scales(weight, part, random, sink);
  } else if (weight.dtype == mx::float32) {
    emit<float>(count_of(weight.shape), sink, [&] {
      return std::fma(0.1f, random.normal(), weight.mean);
    });
  } else {
    emit<uint16_t>(count_of(weight.shape), sink, [&] {
      return to_bfloat16(std::fma(0.1f, random.normal(), weight.mean));
    });
  }
}

} // namespace zmlx
