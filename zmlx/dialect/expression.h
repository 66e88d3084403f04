// SPDX-License-Identifier: MIT
// The form in which expressions run: typed instructions over 32-bit lanes, and
// what each operation means at its edges on every backend.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

namespace zmlx::dialect {

/// What a lane holds. Arrays of any dtype are read as Float (half, bfloat16,
/// integers and bools are converted) and results are converted when stored.
enum class Type : uint8_t { Float, Int, Bool };

/// One operation. Float is IEEE float32 with Metal's precise functions: no
/// contraction (only Fma fuses), NaN in means NaN out, results to 2 ulp, unless
/// a line below says otherwise. Int is int32 and wraps around.
enum class Op : uint8_t {
  // Leaves.
  Constant, // value in Instruction::bits
  Input, // element of input number Instruction::bits, as Float

  // Float or Int, as the operands are.
  Neg, // flips the sign of zero and NaN too
  Abs,
  Add,
  Sub,
  Mul,
  Div, // Int: towards zero; x / 0 = 0, INT_MIN / -1 = INT_MIN
  Min, // Float: the other operand when one is NaN; -0 and +0 are alike
  Max, // as Min

  // Int only; And, Or, Xor and Not also on Bool.
  Rem, // sign of the dividend; x % 0 = 0
  And,
  Or,
  Xor,
  Not, // Bool: logical, Int: bitwise
  Shl, // shift counts modulo 32
  Shr, // arithmetic

  // Two Floats or two Ints to Bool; false with NaN, but NotEqual is true.
  Less,
  LessEqual,
  Equal,
  NotEqual,

  Select, // args[0] (Bool) ? args[1] : args[2]; both sides are computed

  ToFloat, // from Int (nearest even) or Bool (0 or 1)
  ToInt, // from Float (truncates, saturates, NaN gives 0) or Bool (0 or 1)
  RoundHalf, // Float to the nearest float16 value, ties to even, as a Float
  RoundBfloat, // the same for bfloat16

  // Float only from here on. Two and three operands.
  Fma, // args[0] * args[1] + args[2], rounded once
  Pow, // C's pow: pow(x, 0) = pow(1, y) = 1 even for NaN; NaN for x < 0 and
  // y no integer; pow(+-0, y < 0) = inf (-inf for -0 and odd y)
  Atan2, // C's atan2(y = args[0], x = args[1]), signed zeros and infinities too
  Fmod, // exact; sign of args[0]; NaN for x = +-inf or y = 0; fmod(x, inf) = x
  CopySign, // size of args[0], sign of args[1]

  // One operand.
  Exp, // exp(-inf) = 0, overflows to inf
  Exp2,
  Exp10,
  Expm1, // exp(x) - 1 without cancellation; expm1(-0) = -0
  Log, // log(+-0) = -inf, NaN below
  Log2,
  Log10,
  Log1p, // log(1 + x) without cancellation; -inf at -1, NaN below
  Sin, // full range reduction; NaN at +-inf
  Cos,
  Tan,
  SinPi, // sin(pi * x), exact zeros at integers
  CosPi,
  TanPi,
  Asin, // NaN outside [-1, 1]
  Acos,
  Atan,
  Sinh,
  Cosh,
  Tanh, // +-1 at +-inf; tanh(-0) = -0
  Asinh,
  Acosh, // NaN below 1
  Atanh, // +-inf at +-1, NaN outside
  Sqrt, // correctly rounded; sqrt(-0) = -0, NaN below
  Rsqrt, // 1 / sqrt(x): inf at +0, -inf at -0, 0 at inf
  Floor,
  Ceil,
  Round, // halves away from zero
  Rint, // halves to even
  Trunc,
  Fract, // min(x - floor(x), 0x1.fffffep-1); 0 at +-inf
  Sign, // -1, 1, or x itself at +-0; 0 at NaN
  Erf,
  Erfc, // 1 - erf(x) without cancellation
  Sigmoid, // 1 / (1 + exp(-x)), small values to full relative precision
};

inline constexpr int kNumOps = static_cast<int>(Op::Sigmoid) + 1;

/// Operands that an operation takes: 0 to 3.
int arity(Op op);

/// The operation's name as in the enumeration, for dumps and messages.
std::string_view name(Op op);

/// One step: a result in a lane of its own, from the results of earlier steps.
struct Instruction {
  Op op = Op::Constant;
  Type type = Type::Float; // of the result; code[args[i]].type of an operand
  std::array<int, 3> args{-1, -1, -1}; // indices of earlier instructions
  uint32_t bits = 0; // Constant: the lane's bits (Bool: 0 or 1); Input: number

  float as_float() const {
    return std::bit_cast<float>(bits);
  }
  int32_t as_int() const {
    return static_cast<int32_t>(bits);
  }
  friend bool operator==(const Instruction&, const Instruction&) = default;
};

/// A straight-line program: every instruction once, operands before use, none
/// that no output needs. All outputs are Float.
struct FlatExpression {
  std::vector<Instruction> code;
  std::vector<int> outputs; // indices into code, at least one
  int num_inputs = 0; // some of them may be unused

  friend bool operator==(const FlatExpression&, const FlatExpression&) =
      default;
};

} // namespace zmlx::dialect
