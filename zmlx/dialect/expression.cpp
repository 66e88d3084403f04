// SPDX-License-Identifier: MIT
#include "zmlx/dialect/expression.h"

namespace zmlx::dialect {
namespace {

struct OpInfo {
  std::string_view name;
  int arity;
};

// In the order of Op.
constexpr OpInfo kOps[] = {
    {"Constant", 0},  {"Input", 0},       {"Neg", 1},       {"Abs", 1},
    {"Add", 2},       {"Sub", 2},         {"Mul", 2},       {"Div", 2},
    {"Min", 2},       {"Max", 2},         {"Rem", 2},       {"And", 2},
    {"Or", 2},        {"Xor", 2},         {"Not", 1},       {"Shl", 2},
    {"Shr", 2},       {"Less", 2},        {"LessEqual", 2}, {"Equal", 2},
    {"NotEqual", 2},  {"Select", 3},      {"ToFloat", 1},   {"ToInt", 1},
    {"RoundHalf", 1}, {"RoundBfloat", 1}, {"Fma", 3},       {"Pow", 2},
    {"Atan2", 2},     {"Fmod", 2},        {"CopySign", 2},  {"Exp", 1},
    {"Exp2", 1},      {"Exp10", 1},       {"Expm1", 1},     {"Log", 1},
    {"Log2", 1},      {"Log10", 1},       {"Log1p", 1},     {"Sin", 1},
    {"Cos", 1},       {"Tan", 1},         {"SinPi", 1},     {"CosPi", 1},
    {"TanPi", 1},     {"Asin", 1},        {"Acos", 1},      {"Atan", 1},
    {"Sinh", 1},      {"Cosh", 1},        {"Tanh", 1},      {"Asinh", 1},
    {"Acosh", 1},     {"Atanh", 1},       {"Sqrt", 1},      {"Rsqrt", 1},
    {"Floor", 1},     {"Ceil", 1},        {"Round", 1},     {"Rint", 1},
    {"Trunc", 1},     {"Fract", 1},       {"Sign", 1},      {"Erf", 1},
    {"Erfc", 1},      {"Sigmoid", 1},
};
static_assert(sizeof kOps / sizeof *kOps == kNumOps);

} // namespace

int arity(Op op) {
  return kOps[static_cast<int>(op)].arity;
}

std::string_view name(Op op) {
  return kOps[static_cast<int>(op)].name;
}

} // namespace zmlx::dialect
