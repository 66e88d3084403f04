// SPDX-License-Identifier: MIT
#include "zmlx/dialect/scalar.h"

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

namespace zmlx::dialect {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// In double, so that one rounding to float is nearly all the error.
float unary_function(Op op, double x) {
  constexpr double pi = std::numbers::pi;
  // sin(pi x) and cos(pi x): an exact remainder first.
  const auto sin_pi = [](double v) {
    const double r = std::fmod(v, 2.0);
    return r == std::trunc(r) ? std::copysign(0.0, v) : std::sin(pi * r);
  };
  const auto cos_pi = [](double v) {
    const double r = std::fmod(std::abs(v), 2.0);
    return r == 0.5 || r == 1.5 ? 0.0 : std::cos(pi * r);
  };
  const auto value = [&]() -> double {
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
        return 1.0 / std::sqrt(x);
      case Op::Erf:
        return std::erf(x);
      case Op::Erfc:
        return std::erfc(x);
      case Op::Sigmoid:
        return 1.0 / (1.0 + std::exp(-x));
      default:
        return kNan;
    }
  };
  return static_cast<float>(value());
}

float rounding(Op op, float x) {
  switch (op) {
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
      return std::isinf(x) ? 0.0f
          : std::isnan(x)  ? x
                           : std::fmin(x - std::floor(x), 0x1.fffffep-1f);
    case Op::Sign:
      return x > 0 ? 1.0f : x < 0 ? -1.0f : x == 0 ? x : 0.0f;
    case Op::RoundHalf: {
      const float size = std::abs(x);
      if (!(size < 65520.0f)) {
        return std::isnan(x) ? x : std::copysign(INFINITY, x);
      }
      // A unit of the last place: 2^-24 for subnormals, else exponent - 10.
      const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
      const float unit = std::ldexp(1.0f, exponent - 10);
      return std::nearbyint(x / unit) * unit;
    }
    case Op::RoundBfloat: {
      if (std::isnan(x)) {
        return x;
      }
      const uint32_t bits = std::bit_cast<uint32_t>(x);
      return std::bit_cast<float>(
          (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
    }
    default:
      return kNan;
  }
}

float on_floats(Op op, float a, float b, float c) {
  switch (op) {
    case Op::Neg:
      return -a;
    case Op::Abs:
      return std::abs(a);
    case Op::Add:
      return a + b;
    case Op::Sub:
      return a - b;
    case Op::Mul:
      return a * b;
    case Op::Div:
      return a / b;
    case Op::Min:
      return std::fmin(a, b);
    case Op::Max:
      return std::fmax(a, b);
    case Op::Fma:
      return std::fma(a, b, c);
    case Op::Pow:
      return static_cast<float>(
          std::pow(static_cast<double>(a), static_cast<double>(b)));
    case Op::Atan2:
      return static_cast<float>(
          std::atan2(static_cast<double>(a), static_cast<double>(b)));
    case Op::Fmod:
      return std::fmod(a, b);
    case Op::CopySign:
      return std::copysign(a, b);
    case Op::Floor:
    case Op::Ceil:
    case Op::Round:
    case Op::Rint:
    case Op::Trunc:
    case Op::Fract:
    case Op::Sign:
    case Op::RoundHalf:
    case Op::RoundBfloat:
      return rounding(op, a);
    default:
      return unary_function(op, a);
  }
}

bool compare(Op op, float a, float b) {
  return op == Op::Less     ? a < b
      : op == Op::LessEqual ? a <= b
      : op == Op::Equal     ? a == b
                            : a != b;
}

bool compare(Op op, int32_t a, int32_t b) {
  return op == Op::Less     ? a < b
      : op == Op::LessEqual ? a <= b
      : op == Op::Equal     ? a == b
                            : a != b;
}

// Unsigned, for wrapping.
uint32_t on_ints(Op op, uint32_t a, uint32_t b) {
  const auto x = static_cast<int32_t>(a), y = static_cast<int32_t>(b);
  switch (op) {
    case Op::Neg:
      return 0u - a;
    case Op::Abs:
      return x < 0 ? 0u - a : a;
    case Op::Add:
      return a + b;
    case Op::Sub:
      return a - b;
    case Op::Mul:
      return a * b;
    case Op::Div:
      return y == 0 ? 0u : y == -1 ? 0u - a : static_cast<uint32_t>(x / y);
    case Op::Rem:
      return y == 0 || y == -1 ? 0u : static_cast<uint32_t>(x % y);
    case Op::Min:
      return x < y ? a : b;
    case Op::Max:
      return x < y ? b : a;
    case Op::And:
      return a & b;
    case Op::Or:
      return a | b;
    case Op::Xor:
      return a ^ b;
    case Op::Not:
      return ~a;
    case Op::Shl:
      return a << (b & 31u);
    case Op::Shr:
      return static_cast<uint32_t>(x >> (b & 31u));
    default:
      return 0u;
  }
}

uint32_t to_int(Type from, uint32_t a) {
  if (from != Type::Float) {
    return a;
  }
  const float x = std::bit_cast<float>(a);
  if (std::isnan(x)) {
    return 0;
  }
  constexpr auto lowest = std::numeric_limits<int32_t>::min();
  constexpr auto highest = std::numeric_limits<int32_t>::max();
  return static_cast<uint32_t>(
      x >= 0x1p31f        ? highest
          : x <= -0x1p31f ? lowest
                          : static_cast<int32_t>(x));
}

uint32_t to_float(Type from, uint32_t a) {
  const float value = from == Type::Float
      ? std::bit_cast<float>(a)
      : static_cast<float>(static_cast<int32_t>(a));
  return std::bit_cast<uint32_t>(value);
}

} // namespace

uint32_t evaluate(Op op, Type operands, uint32_t a, uint32_t b, uint32_t c) {
  const auto as_float = [](uint32_t bits) {
    return std::bit_cast<float>(bits);
  };
  switch (op) {
    case Op::Select:
      return a ? b : c;
    case Op::ToFloat:
      return to_float(operands, a);
    case Op::ToInt:
      return to_int(operands, a);
    case Op::Less:
    case Op::LessEqual:
    case Op::Equal:
    case Op::NotEqual:
      return operands == Type::Float
          ? compare(op, as_float(a), as_float(b))
          : compare(op, static_cast<int32_t>(a), static_cast<int32_t>(b));
    default:
      break;
  }
  if (operands == Type::Bool) {
    return on_ints(op, a, b) & 1u;
  }
  if (operands == Type::Int) {
    return on_ints(op, a, b);
  }
  return std::bit_cast<uint32_t>(
      on_floats(op, as_float(a), as_float(b), as_float(c)));
}

} // namespace zmlx::dialect
