// SPDX-License-Identifier: MIT
#include "zmlx/dialect/builtins.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace zmlx::dialect {
namespace {

using Id = Graph::Id;

template <Op op>
Id one(Graph& graph, const Id* args) {
  return graph.make(op, args[0]);
}

template <Op op>
Id two(Graph& graph, const Id* args) {
  return graph.make(op, args[0], args[1]);
}

Id clamp(Graph& g, const Id* a) {
  return g.make(Op::Min, g.make(Op::Max, a[0], a[1]), a[2]);
}

Id saturate(Graph& g, Id x) {
  const Id args[] = {x, g.constant(0.0f), g.constant(1.0f)};
  return clamp(g, args);
}

template <Op op>
Id three(Graph& g, const Id* a) {
  return g.make(op, g.make(op, a[0], a[1]), a[2]);
}

Id median(Graph& g, const Id* a) {
  const Id low = g.make(Op::Min, a[0], a[1]);
  const Id high = g.make(Op::Max, a[0], a[1]);
  return g.make(Op::Max, low, g.make(Op::Min, high, a[2]));
}

Id smoothstep(Graph& g, const Id* a) {
  const Id t = saturate(g, g.div(g.sub(a[2], a[0]), g.sub(a[1], a[0])));
  return g.mul(
      g.mul(t, t), g.sub(g.constant(3.0f), g.mul(g.constant(2.0f), t)));
}

Id compare_infinity(Graph& g, Op op, Id x) {
  return g.make(op, g.make(Op::Abs, x), g.constant(INFINITY));
}

// x * 2^n in two steps, since 2^n alone may overflow.
Id ldexp(Graph& g, const Id* a) {
  const Id whole = g.make(Op::Trunc, a[1]);
  const Id half = g.make(Op::Trunc, g.mul(whole, g.constant(0.5f)));
  return g.mul(
      g.mul(a[0], g.make(Op::Exp2, half)),
      g.make(Op::Exp2, g.sub(whole, half)));
}

// 0.5 * x * (1 + tanh(u)) with u = sqrt(2 / pi) * (x + 0.044715 * x^3), as
// x * sigmoid(2 u), which does not cancel for negative x.
Id gelu_tanh(Graph& g, const Id* a) {
  const Id x = a[0];
  const Id cube = g.mul(g.mul(x, x), x);
  const Id inner = g.mul(
      g.constant(1.5957691216f), g.add(x, g.mul(g.constant(0.044715f), cube)));
  return g.mul(x, g.make(Op::Sigmoid, inner));
}

// 0.5 * x * erfc(-x / sqrt(2)): no cancellation for negative x.
Id gelu(Graph& g, const Id* a) {
  const float root = std::numbers::sqrt2_v<float> / 2;
  return g.mul(
      g.mul(g.constant(0.5f), a[0]),
      g.make(Op::Erfc, g.mul(a[0], g.constant(-root))));
}

// log(1 + exp(x)) without overflow: max(x, 0) + log1p(exp(-|x|)), with selects,
// whose derivatives at 0 add up to 1/2.
Id softplus(Graph& g, const Id* a) {
  const Id x = a[0], zero = g.constant(0.0f);
  const Id negative = g.make(Op::Less, x, zero);
  const Id tail = g.make(Op::Exp, g.select(negative, x, g.neg(x)));
  return g.add(g.select(negative, zero, x), g.make(Op::Log1p, tail));
}

constexpr Builtin kBuiltins[] = {
    {"abs", 1, true, one<Op::Abs>},
    {"acos", 1, false, one<Op::Acos>},
    {"acosh", 1, false, one<Op::Acosh>},
    {"asin", 1, false, one<Op::Asin>},
    {"asinh", 1, false, one<Op::Asinh>},
    {"atan", 1, false, one<Op::Atan>},
    {"atan2", 2, false, two<Op::Atan2>},
    {"atanh", 1, false, one<Op::Atanh>},
    {"ceil", 1, false, one<Op::Ceil>},
    {"clamp", 3, true, clamp},
    {"copysign", 2, false, two<Op::CopySign>},
    {"cos", 1, false, one<Op::Cos>},
    {"cosh", 1, false, one<Op::Cosh>},
    {"cospi", 1, false, one<Op::CosPi>},
    {"divide", 2, false, two<Op::Div>},
    {"erf", 1, false, one<Op::Erf>},
    {"erfc", 1, false, one<Op::Erfc>},
    {"exp", 1, false, one<Op::Exp>},
    {"exp10", 1, false, one<Op::Exp10>},
    {"exp2", 1, false, one<Op::Exp2>},
    {"expm1", 1, false, one<Op::Expm1>},
    {"fabs", 1, false, one<Op::Abs>},
    {"fdim",
     2,
     false,
     [](Graph& g, const Id* a) {
       return g.select(
           g.make(Op::LessEqual, a[0], a[1]),
           g.constant(0.0f),
           g.sub(a[0], a[1]));
     }},
    {"floor", 1, false, one<Op::Floor>},
    {"fma",
     3,
     false,
     [](Graph& g, const Id* a) { return g.make(Op::Fma, a[0], a[1], a[2]); }},
    {"fmax", 2, false, two<Op::Max>},
    {"fmax3", 3, false, three<Op::Max>},
    {"fmedian3", 3, false, median},
    {"fmin", 2, false, two<Op::Min>},
    {"fmin3", 3, false, three<Op::Min>},
    {"fmod", 2, false, two<Op::Fmod>},
    {"fract", 1, false, one<Op::Fract>},
    {"gelu", 1, false, gelu},
    {"gelu_tanh", 1, false, gelu_tanh},
    {"isfinite",
     1,
     false,
     [](Graph& g, const Id* a) { return compare_infinity(g, Op::Less, a[0]); }},
    {"isinf",
     1,
     false,
     [](Graph& g, const Id* a) {
       return compare_infinity(g, Op::Equal, a[0]);
     }},
    {"isnan",
     1,
     false,
     [](Graph& g, const Id* a) { return g.make(Op::NotEqual, a[0], a[0]); }},
    {"ldexp", 2, false, ldexp},
    {"log", 1, false, one<Op::Log>},
    {"log10", 1, false, one<Op::Log10>},
    {"log1p", 1, false, one<Op::Log1p>},
    {"log2", 1, false, one<Op::Log2>},
    {"mad",
     3,
     false,
     [](Graph& g, const Id* a) { return g.add(g.mul(a[0], a[1]), a[2]); }},
    {"max", 2, true, two<Op::Max>},
    {"max3", 3, true, three<Op::Max>},
    {"median3", 3, true, median},
    {"min", 2, true, two<Op::Min>},
    {"min3", 3, true, three<Op::Min>},
    {"mix",
     3,
     false,
     [](Graph& g, const Id* a) {
       return g.add(a[0], g.mul(g.sub(a[1], a[0]), a[2]));
     }},
    {"pow", 2, false, two<Op::Pow>},
    {"powr",
     2,
     false,
     [](Graph& g, const Id* a) {
       return g.select(
           g.make(Op::Less, a[0], g.constant(0.0f)),
           g.constant(std::numeric_limits<float>::quiet_NaN()),
           g.make(Op::Pow, a[0], a[1]));
     }},
    {"relu",
     1,
     false,
     [](Graph& g, const Id* a) {
       return g.make(Op::Max, a[0], g.constant(0.0f));
     }},
    {"rint", 1, false, one<Op::Rint>},
    {"round", 1, false, one<Op::Round>},
    {"rsqrt", 1, false, one<Op::Rsqrt>},
    {"saturate",
     1,
     false,
     [](Graph& g, const Id* a) { return saturate(g, a[0]); }},
    {"sigmoid", 1, false, one<Op::Sigmoid>},
    {"sign", 1, false, one<Op::Sign>},
    {"signbit",
     1,
     false,
     [](Graph& g, const Id* a) {
       return g.make(
           Op::Less,
           g.make(Op::CopySign, g.constant(1.0f), a[0]),
           g.constant(0.0f));
     }},
    {"silu",
     1,
     false,
     [](Graph& g, const Id* a) {
       return g.mul(a[0], g.make(Op::Sigmoid, a[0]));
     }},
    {"sin", 1, false, one<Op::Sin>},
    {"sinh", 1, false, one<Op::Sinh>},
    {"sinpi", 1, false, one<Op::SinPi>},
    {"smoothstep", 3, false, smoothstep},
    {"softplus", 1, false, softplus},
    {"sqrt", 1, false, one<Op::Sqrt>},
    {"step",
     2,
     false,
     [](Graph& g, const Id* a) {
       return g.select(
           g.make(Op::Less, a[1], a[0]), g.constant(0.0f), g.constant(1.0f));
     }},
    {"tan", 1, false, one<Op::Tan>},
    {"tanh", 1, false, one<Op::Tanh>},
    {"tanpi", 1, false, one<Op::TanPi>},
    {"trunc", 1, false, one<Op::Trunc>},
};

struct Constant {
  std::string_view name;
  double value;
};

constexpr Constant kConstants[] = {
    {"FLT_EPSILON", std::numeric_limits<float>::epsilon()},
    {"FLT_MAX", std::numeric_limits<float>::max()},
    {"FLT_MIN", std::numeric_limits<float>::min()},
    {"HUGE_VALF", std::numeric_limits<double>::infinity()},
    {"INFINITY", std::numeric_limits<double>::infinity()},
    {"MAXFLOAT", std::numeric_limits<float>::max()},
    {"M_1_PI_F", std::numbers::inv_pi},
    {"M_2_PI_F", 2 * std::numbers::inv_pi},
    {"M_2_SQRTPI_F", 2 * std::numbers::inv_sqrtpi},
    {"M_E_F", std::numbers::e},
    {"M_LN10_F", std::numbers::ln10},
    {"M_LN2_F", std::numbers::ln2},
    {"M_LOG10E_F", std::numbers::log10e},
    {"M_LOG2E_F", std::numbers::log2e},
    {"M_PI_2_F", std::numbers::pi / 2},
    {"M_PI_4_F", std::numbers::pi / 4},
    {"M_PI_F", std::numbers::pi},
    {"M_SQRT1_2_F", std::numbers::sqrt2 / 2},
    {"M_SQRT2_F", std::numbers::sqrt2},
    {"NAN", std::numeric_limits<double>::quiet_NaN()},
};

const Builtin* find_exact(std::string_view name) {
  const auto* found = std::ranges::find(kBuiltins, name, &Builtin::name);
  return found == std::end(kBuiltins) ? nullptr : found;
}

} // namespace

const Builtin* find_builtin(std::string_view name) {
  if (name.starts_with("kk_")) {
    name.remove_prefix(3);
  }
  if (const auto* found = find_exact(name)) {
    return found;
  }
  return name.ends_with('f') ? find_exact(name.substr(0, name.size() - 1))
                             : nullptr;
}

std::optional<float> find_constant(std::string_view name) {
  for (const auto& constant : kConstants) {
    // Metal's M_PI_F and C's M_PI mean the same float here.
    if (name == constant.name ||
        (name.starts_with("M_") && constant.name.ends_with("_F") &&
         name == constant.name.substr(0, constant.name.size() - 2))) {
      return static_cast<float>(constant.value);
    }
  }
  return std::nullopt;
}

std::vector<std::string> builtin_names() {
  std::vector<std::string> names;
  for (const auto& builtin : kBuiltins) {
    names.emplace_back(builtin.name);
  }
  for (const auto& constant : kConstants) {
    names.emplace_back(constant.name);
  }
  return names;
}

Id call(Graph& graph, const Builtin& builtin, std::span<const Id> args) {
  const bool ints = builtin.takes_int && std::ranges::all_of(args, [&](Id id) {
                      return graph.type(id) != Type::Float;
                    });
  std::vector<Id> converted;
  for (const Id arg : args) {
    converted.push_back(graph.convert(arg, ints ? Type::Int : Type::Float));
  }
  return builtin.build(graph, converted.data());
}

} // namespace zmlx::dialect
