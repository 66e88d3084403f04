// SPDX-License-Identifier: MIT
#include "zmlx/dialect/print.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "zmlx/base/error.h"

namespace zmlx::dialect {
namespace {

// C's precedence of what a text is made with; operands that bind looser get
// parentheses.
enum Level {
  kTernary = 1,
  kOr,
  kAnd,
  kBitOr,
  kBitXor,
  kBitAnd,
  kEqual,
  kCompare,
  kShift,
  kSum,
  kProduct,
  kPrefix,
  kAtom
};

struct Text {
  std::string text;
  int level = kAtom;
};

struct Infix {
  std::string_view symbol;
  int level;
};

Infix infix(Op op, Type operands) {
  const bool logical = operands == Type::Bool;
  switch (op) {
    case Op::Add:
      return {" + ", kSum};
    case Op::Sub:
      return {" - ", kSum};
    case Op::Mul:
      return {" * ", kProduct};
    case Op::Div:
      return {" / ", kProduct};
    case Op::And:
      return logical ? Infix{" && ", kAnd} : Infix{" & ", kBitAnd};
    case Op::Or:
      return logical ? Infix{" || ", kOr} : Infix{" | ", kBitOr};
    case Op::Xor:
      return {" ^ ", kBitXor};
    case Op::Less:
      return {" < ", kCompare};
    case Op::LessEqual:
      return {" <= ", kCompare};
    case Op::Equal:
      return {" == ", kEqual};
    case Op::NotEqual:
      return {" != ", kEqual};
    default:
      return {"", 0};
  }
}

// Functions by their name in Metal or the prelude; parse() knows them too.
std::string_view function_name(Op op) {
  switch (op) {
    case Op::Abs:
      return "fabs";
    case Op::Min:
      return "fmin";
    case Op::Max:
      return "fmax";
    case Op::Fma:
      return "fma";
    case Op::Pow:
      return "pow";
    case Op::Atan2:
      return "atan2";
    case Op::Fmod:
      return "fmod";
    case Op::CopySign:
      return "copysign";
    case Op::Exp:
      return "exp";
    case Op::Exp2:
      return "exp2";
    case Op::Exp10:
      return "exp10";
    case Op::Expm1:
      return "kk_expm1";
    case Op::Log:
      return "log";
    case Op::Log2:
      return "log2";
    case Op::Log10:
      return "log10";
    case Op::Log1p:
      return "kk_log1p";
    case Op::Sin:
      return "sin";
    case Op::Cos:
      return "cos";
    case Op::Tan:
      return "tan";
    case Op::SinPi:
      return "sinpi";
    case Op::CosPi:
      return "cospi";
    case Op::TanPi:
      return "kk_tanpi";
    case Op::Asin:
      return "asin";
    case Op::Acos:
      return "acos";
    case Op::Atan:
      return "atan";
    case Op::Sinh:
      return "sinh";
    case Op::Cosh:
      return "cosh";
    case Op::Tanh:
      return "tanh";
    case Op::Asinh:
      return "asinh";
    case Op::Acosh:
      return "acosh";
    case Op::Atanh:
      return "atanh";
    case Op::Sqrt:
      return "sqrt";
    case Op::Rsqrt:
      return "rsqrt";
    case Op::Floor:
      return "floor";
    case Op::Ceil:
      return "ceil";
    case Op::Round:
      return "round";
    case Op::Rint:
      return "rint";
    case Op::Trunc:
      return "trunc";
    case Op::Fract:
      return "kk_fract";
    case Op::Sign:
      return "kk_sign";
    case Op::Erf:
      return "kk_erf";
    case Op::Erfc:
      return "kk_erfc";
    case Op::Sigmoid:
      return "kk_sigmoid";
    default:
      return "";
  }
}

// Quicker forms for results of 16 bits.
std::string_view narrow_name(Op op) {
  switch (op) {
    case Op::Exp:
      return "kk_narrow_exp";
    case Op::Log:
      return "kk_narrow_log";
    case Op::Tanh:
      return "kk_narrow_tanh";
    case Op::Sigmoid:
      return "kk_narrow_sigmoid";
    default:
      return function_name(op);
  }
}

// Shortest digits that read back to the same float.
std::string float_literal(float value) {
  if (std::isnan(value)) {
    return "NAN";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-INFINITY" : "INFINITY";
  }
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value);
  std::string text(digits, end.ptr);
  if (text.find_first_of(".e") == std::string::npos) {
    text += ".0";
  }
  return text + 'f';
}

std::string_view type_name(Type type) {
  return type == Type::Float ? "float" : type == Type::Int ? "int" : "bool";
}

// The prefix, longer where an input starts with it.
std::string unlike(
    std::string_view prefix,
    std::span<const std::string> inputs) {
  std::string made(prefix);
  while (std::ranges::any_of(inputs, [&](const std::string& input) {
    return input.starts_with(made);
  })) {
    made += '_';
  }
  return made;
}

class Printer {
 public:
  Printer(
      const FlatExpression& expression,
      std::span<const std::string> inputs,
      bool reparse,
      bool narrow)
      : code_(expression.code),
        inputs_(inputs),
        reparse_(reparse),
        narrow_(narrow),
        prefix_(unlike("t", inputs)),
        uses_(code_.size(), 0),
        texts_(code_.size()) {
    for (const auto& step : code_) {
      for (int i = 0; i < arity(step.op); ++i) {
        ++uses_[step.args[i]];
      }
    }
    for (const int output : expression.outputs) {
      ++uses_[output];
    }
    for (size_t i = 0; i < code_.size(); ++i) {
      texts_[i] = text_of(code_[i]);
      const bool leaf = arity(code_[i].op) == 0;
      // Long values get a name too, so that no line grows without end.
      if (!leaf && (uses_[i] > 1 || texts_[i].text.size() > 400)) {
        const std::string name = concat(prefix_, ++num_names_);
        declarations_ += concat(
            "const ",
            type_name(code_[i].type),
            ' ',
            name,
            " = ",
            texts_[i].text,
            ";\n");
        texts_[i] = {name, kAtom};
      }
    }
  }

  const std::string& declarations() const {
    return declarations_;
  }
  const std::string& value(int index) const {
    return texts_[index].text;
  }

 private:
  std::string wrap(int index, int level) const {
    const auto& [text, own] = texts_[index];
    return own < level ? concat('(', text, ')') : text;
  }

  Text call(std::string_view name, const Instruction& step) const {
    std::string text = concat(name, '(');
    for (int i = 0; i < arity(step.op); ++i) {
      text += concat(i ? ", " : "", texts_[step.args[i]].text);
    }
    return {text + ')', kAtom};
  }

  Text constant(const Instruction& step) const {
    if (step.type == Type::Bool) {
      return {step.bits ? "true" : "false", kAtom};
    }
    if (step.type == Type::Int) { // INT_MIN has no literal
      const std::string text = step.bits == 0x80000000u
          ? "-2147483647 - 1"
          : std::to_string(step.as_int());
      return {
          text,
          step.bits == 0x80000000u ? kSum
              : step.as_int() < 0  ? kPrefix
                                   : kAtom};
    }
    const std::string text = float_literal(step.as_float());
    return {text, text[0] == '-' ? kPrefix : kAtom};
  }

  Text int_function(const Instruction& step) const {
    switch (step.op) {
      case Op::Abs:
        return call("abs", step);
      case Op::Min:
        return call("min", step);
      case Op::Max:
        return call("max", step);
      default:
        break;
    }
    if (reparse_) {
      const std::string_view symbol = step.op == Op::Div ? " / "
          : step.op == Op::Rem                           ? " % "
          : step.op == Op::Shl                           ? " << "
                                                         : " >> ";
      const int level =
          step.op == Op::Shl || step.op == Op::Shr ? kShift : kProduct;
      return {
          concat(
              wrap(step.args[0], level), symbol, wrap(step.args[1], level + 1)),
          level};
    }
    return call(
        step.op == Op::Div       ? "kk_div"
            : step.op == Op::Rem ? "kk_rem"
            : step.op == Op::Shl ? "kk_shl"
                                 : "kk_shr",
        step);
  }

  Text text_of(const Instruction& step) const {
    const auto [a, b, c] = step.args;
    const Type operands = a < 0 ? step.type : code_[a].type;
    switch (step.op) {
      case Op::Constant:
        return constant(step);
      case Op::Input:
        return {inputs_[step.bits], kAtom};
      case Op::Neg:
        // Not "--a".
        return {
            concat('-', wrap(a, texts_[a].text[0] == '-' ? kAtom : kPrefix)),
            kPrefix};
      case Op::Not:
        return {
            concat(operands == Type::Bool ? '!' : '~', wrap(a, kPrefix)),
            kPrefix};
      case Op::Select:
        return {
            concat(wrap(a, kOr), " ? ", wrap(b, kOr), " : ", wrap(c, kOr)),
            kTernary};
      case Op::ToFloat:
        return call("float", step);
      case Op::ToInt:
        return call(
            reparse_ || operands == Type::Bool ? "int" : "kk_int", step);
      case Op::RoundHalf:
        return call(reparse_ ? "half" : "kk_half", step);
      case Op::RoundBfloat:
        return call(reparse_ ? "bfloat" : "kk_bfloat", step);
      default:
        break;
    }
    if (narrow_ && operands == Type::Float && step.op == Op::Div) {
      return call("kk_narrow_div", step);
    }
    const bool guarded = operands == Type::Int && step.op == Op::Div;
    if (const Infix symbol = infix(step.op, operands);
        symbol.level && !guarded) {
      return {
          concat(
              wrap(a, symbol.level), symbol.symbol, wrap(b, symbol.level + 1)),
          symbol.level};
    }
    if (operands == Type::Int) {
      return int_function(step);
    }
    return call(narrow_ ? narrow_name(step.op) : function_name(step.op), step);
  }

  const std::vector<Instruction>& code_;
  std::span<const std::string> inputs_;
  bool reparse_, narrow_;
  std::string prefix_;
  int num_names_ = 0;
  std::vector<int> uses_;
  std::vector<Text> texts_;
  std::string declarations_;
};

} // namespace

std::string print_statements(
    const FlatExpression& expression,
    std::span<const std::string> inputs,
    std::span<const std::string> results,
    bool narrow) {
  const Printer printer(expression, inputs, false, narrow);
  std::string text = printer.declarations();
  for (size_t i = 0; i < results.size(); ++i) {
    text +=
        concat(results[i], " = ", printer.value(expression.outputs[i]), ";\n");
  }
  return text;
}

std::string print(
    const FlatExpression& expression,
    std::span<const std::string> inputs) {
  const Printer printer(expression, inputs, true, false);
  const auto& value = printer.value(expression.outputs[0]);
  return printer.declarations().empty()
      ? value
      : concat(printer.declarations(), "return ", value, ";");
}

} // namespace zmlx::dialect
