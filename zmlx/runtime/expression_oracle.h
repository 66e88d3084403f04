// SPDX-License-Identifier: MIT
// What an expression means, lane by lane and slowly: the independent side of
// tests. Every operation is computed in double and rounded once.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <vector>

#include "zmlx/dialect/expression.h"

namespace zmlx::oracle {

using dialect::Op;
using dialect::Type;

/// f(pi x) for f = sin, cos, tan, with x reduced exactly.
inline double sin_pi(double x) {
  if (!std::isfinite(x)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double r = std::fmod(std::abs(x), 2.0); // [0, 2)
  const double half = std::fmod(r, 1.0);
  const double size =
      std::sin(std::numbers::pi * (half > 0.5 ? 1 - half : half));
  return std::copysign(1.0, x) * (r >= 1 ? -size : size);
}
inline double cos_pi(double x) {
  if (!std::isfinite(x)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double r = std::fmod(std::abs(x), 2.0);
  const double d = r > 1 ? 2 - r : r; // [0, 1]
  return d <= 0.25 ? std::cos(std::numbers::pi * d)
      : d < 0.75   ? std::sin(std::numbers::pi * (0.5 - d))
                   : -std::cos(std::numbers::pi * (1 - d));
}

/// A Float operation of one operand.
inline double unary(Op op, double x) {
  switch (op) {
    case Op::Exp:
      return std::exp(x);
    case Op::Exp2:
      return std::exp2(x);
    case Op::Exp10:
      return std::pow(10.0, x);
    case Op::Expm1:
      return std::expm1(x);
    case Op::Log:
      return std::log(x);
    case Op::Log2:
      return std::log2(x);
    case Op::Log10:
      return std::log10(x);
    case Op::Log1p:
      return std::log1p(x);
    case Op::Sin:
      return std::sin(x);
    case Op::Cos:
      return std::cos(x);
    case Op::Tan:
      return std::tan(x);
    case Op::SinPi:
      return sin_pi(x);
    case Op::CosPi:
      return cos_pi(x);
    case Op::TanPi:
      return sin_pi(x) / cos_pi(x);
    case Op::Asin:
      return std::asin(x);
    case Op::Acos:
      return std::acos(x);
    case Op::Atan:
      return std::atan(x);
    case Op::Sinh:
      return std::sinh(x);
    case Op::Cosh:
      return std::cosh(x);
    case Op::Tanh:
      return std::tanh(x);
    case Op::Asinh:
      return std::asinh(x);
    case Op::Acosh:
      return std::acosh(x);
    case Op::Atanh:
      return std::atanh(x);
    case Op::Sqrt:
      return std::sqrt(x);
    case Op::Rsqrt:
      return 1 / std::sqrt(x);
    case Op::Floor:
      return std::floor(x);
    case Op::Ceil:
      return std::ceil(x);
    case Op::Round:
      return std::round(x);
    case Op::Rint:
      return std::nearbyint(x);
    case Op::Trunc:
      return std::trunc(x);
    case Op::Fract:
      return std::isnan(x) ? x
          : std::isinf(x)  ? 0
                           : std::fmin(x - std::floor(x), 0x1.fffffep-1);
    case Op::Sign:
      return x > 0 ? 1 : x < 0 ? -1 : x == 0 ? x : 0;
    case Op::Erf:
      return std::erf(x);
    case Op::Erfc:
      return std::erfc(x);
    case Op::Sigmoid:
      return 1 / (1 + std::exp(-x));
    case Op::Neg:
      return -x;
    case Op::Abs:
      return std::abs(x);
    default:
      return std::numeric_limits<double>::quiet_NaN();
  }
}

/// A Float operation of two operands.
inline double binary(Op op, double x, double y) {
  switch (op) {
    case Op::Add:
      return x + y;
    case Op::Sub:
      return x - y;
    case Op::Mul:
      return x * y;
    case Op::Div:
      return x / y;
    case Op::Min:
      return std::fmin(x, y);
    case Op::Max:
      return std::fmax(x, y);
    case Op::Pow:
      return std::pow(x, y);
    case Op::Atan2:
      return std::atan2(x, y);
    case Op::Fmod:
      return std::fmod(x, y);
    case Op::CopySign:
      return std::copysign(x, y);
    default:
      return std::numeric_limits<double>::quiet_NaN();
  }
}

inline int32_t integer(Op op, int32_t x, int32_t y) {
  const auto ux = static_cast<uint32_t>(x), uy = static_cast<uint32_t>(y);
  const bool wraps = y == -1; // INT_MIN / -1 overflows
  switch (op) {
    case Op::Neg:
      return static_cast<int32_t>(0 - ux);
    case Op::Abs:
      return static_cast<int32_t>(x < 0 ? 0 - ux : ux);
    case Op::Add:
      return static_cast<int32_t>(ux + uy);
    case Op::Sub:
      return static_cast<int32_t>(ux - uy);
    case Op::Mul:
      return static_cast<int32_t>(ux * uy);
    case Op::Div:
      return y == 0 ? 0 : wraps ? static_cast<int32_t>(0 - ux) : x / y;
    case Op::Rem:
      return y == 0 || wraps ? 0 : x % y;
    case Op::Min:
      return std::min(x, y);
    case Op::Max:
      return std::max(x, y);
    case Op::And:
      return x & y;
    case Op::Or:
      return x | y;
    case Op::Xor:
      return x ^ y;
    case Op::Shl:
      return static_cast<int32_t>(ux << (uy & 31));
    case Op::Shr:
      return x >> (uy & 31);
    default:
      return 0;
  }
}

/// x rounded to float with `bits` explicit mantissa bits and least exponent
/// `least` of a normal number; beyond `most` it is an infinity.
inline float round_to(float x, int bits, int least, float most) {
  if (!std::isfinite(x) || x == 0) {
    return x;
  }
  int exponent;
  std::frexp(x, &exponent); // |x| in [2^(exponent-1), 2^exponent)
  const int unit = std::max(exponent - 1, least) - bits;
  const double r =
      std::ldexp(std::nearbyint(std::ldexp(double{x}, -unit)), unit);
  return std::abs(r) > most
      ? std::copysign(std::numeric_limits<float>::infinity(), x)
      : static_cast<float>(r);
}

inline int32_t to_int(float x) {
  return std::isnan(x)     ? 0
      : x >= 2147483648.0f ? std::numeric_limits<int32_t>::max()
      : x < -2147483648.0f ? std::numeric_limits<int32_t>::min()
                           : static_cast<int32_t>(x);
}

/// Runs `code` on one lane; returns the bits of every instruction's result.
inline std::vector<uint32_t> run(
    const dialect::FlatExpression& expression,
    const float* inputs) {
  std::vector<uint32_t> lanes;
  for (const auto& step : expression.code) {
    const auto type =
        step.args[0] < 0 ? step.type : expression.code[step.args[0]].type;
    const auto bits = [&](int i) { return lanes[step.args[i]]; };
    const auto f = [&](int i) { return std::bit_cast<float>(bits(i)); };
    const auto n = [&](int i) { return static_cast<int32_t>(bits(i)); };
    const auto of = [](double x) {
      return std::bit_cast<uint32_t>(static_cast<float>(x));
    };
    const bool is_float = type == Type::Float;
    uint32_t result = 0;
    switch (step.op) {
      case Op::Constant:
        result = step.bits;
        break;
      case Op::Input:
        result = of(inputs[step.bits]);
        break;
      case Op::Neg:
        result = is_float ? bits(0) ^ 0x80000000u
                          : static_cast<uint32_t>(integer(step.op, n(0), 0));
        break;
      case Op::Not:
        result = type == Type::Bool ? !bits(0) : ~bits(0);
        break;
      case Op::Less:
        result = is_float ? f(0) < f(1) : n(0) < n(1);
        break;
      case Op::LessEqual:
        result = is_float ? f(0) <= f(1) : n(0) <= n(1);
        break;
      case Op::Equal:
        result = is_float ? f(0) == f(1) : n(0) == n(1);
        break;
      case Op::NotEqual:
        result = is_float ? f(0) != f(1) : n(0) != n(1);
        break;
      case Op::Select:
        result = bits(0) ? bits(1) : bits(2);
        break;
      case Op::ToFloat:
        result = of(n(0));
        break;
      case Op::ToInt:
        result = static_cast<uint32_t>(is_float ? to_int(f(0)) : n(0));
        break;
      case Op::RoundHalf:
        result = of(round_to(f(0), 10, -14, 65504.0f));
        break;
      case Op::RoundBfloat:
        result = of(round_to(f(0), 7, -126, 0x1.fep127f));
        break;
      case Op::Fma:
        result = std::bit_cast<uint32_t>(std::fma(f(0), f(1), f(2)));
        break;
      default:
        if (!is_float) {
          result = static_cast<uint32_t>(
              integer(step.op, n(0), step.args[1] < 0 ? 0 : n(1)));
        } else {
          result =
              of(step.args[1] < 0 ? unary(step.op, f(0))
                                  : binary(step.op, f(0), f(1)));
        }
    }
    lanes.push_back(result);
  }
  return lanes;
}

} // namespace zmlx::oracle
