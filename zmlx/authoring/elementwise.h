// SPDX-License-Identifier: MIT
// Operations from one line of text: any shape, any backend, differentiable.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

class Program;

/// What may be said about an operation besides its text.
struct ElementwiseOptions {
  /// Used in errors and by the profiler; "elementwise" when empty.
  std::string name = {};
  /// Derivatives to use in place of the symbolic ones, one for each input: the
  /// cotangent `g` times the derivative, of the names of the expression, `y`
  /// (its value) and what grad_prelude declares.
  std::vector<std::string> grad_expr = {};
  /// Statements before each grad_expr, as "float s = kk_sigmoid(x);".
  std::string grad_prelude = {};
  /// Functions that the texts may call: "inline float sq(float v) {...}".
  std::string header = {};
};

/// An operation made from text; call it on arrays.
///
/// Inputs broadcast and may have any dtype but complex64 and float64, any
/// strides and no elements; on a GPU 2^31 - 1 at most. Computes in float32
/// (integers are converted); the result has the type that MLX promotes the
/// floating inputs to, else float32. vjp, jvp, vmap, higher derivatives and
/// compile of MLX work on it. Copies share the work of preparing it, which
/// happens once.
class Elementwise {
 public:
  /// One array for each of input_names(), in that order. Throws
  /// std::invalid_argument for another number or shapes that do not broadcast.
  mx::array operator()(
      const std::vector<mx::array>& inputs,
      mx::StreamOrDevice s = {}) const;
  mx::array operator()(const mx::array& x) const {
    return (*this)(std::vector<mx::array>{x});
  }
  mx::array operator()(const mx::array& a, const mx::array& b) const {
    return (*this)(std::vector<mx::array>{a, b});
  }
  mx::array
  operator()(const mx::array& a, const mx::array& b, const mx::array& c) const {
    return (*this)(std::vector<mx::array>{a, b, c});
  }

  const std::vector<std::string>& input_names() const {
    return names_;
  }
  /// The simplified expression in Metal's syntax.
  std::string text() const;
  /// Its derivative by an input, in Metal's syntax; `g` is the cotangent.
  std::string gradient_text(int input = 0) const;

 private:
  friend Elementwise elementwise(std::string_view, const ElementwiseOptions&);
  friend Elementwise
  unary(std::string_view, std::string_view, const ElementwiseOptions&);
  friend Elementwise
  binary(std::string_view, std::string_view, const ElementwiseOptions&);
  friend Elementwise map(
      std::string_view,
      std::string_view,
      const std::vector<std::string>&,
      const ElementwiseOptions&);
  friend Elementwise jit(std::string_view, const ElementwiseOptions&);

  static Elementwise make(
      std::string_view name,
      std::string_view expr,
      const std::vector<std::string>& input_names,
      bool x_is_first,
      const ElementwiseOptions& options);

  Elementwise(
      std::shared_ptr<const Program> program,
      std::vector<std::string> names)
      : program_(std::move(program)), names_(std::move(names)) {}

  std::shared_ptr<const Program> program_;
  std::vector<std::string> names_;
};

/// y = expr(x), as elementwise("x * tanh(log(1 + exp(x)))").
///
/// The text is an expression in C or Metal syntax, or statements that end in
/// one: arithmetic, comparisons, ?:, casts, Metal's functions of floats, kk_
/// helpers, local variables, if, and for with constant bounds. Literals are
/// typed as in C: 1 / 2 is 0. Throws std::invalid_argument pointing at the
/// word that is wrong.
Elementwise elementwise(
    std::string_view expr,
    const ElementwiseOptions& options = {});

/// elementwise() with a name.
Elementwise unary(
    std::string_view name,
    std::string_view expr,
    const ElementwiseOptions& options = {});

/// An operation of inputs `a` (also called `x`) and `b`.
Elementwise binary(
    std::string_view name,
    std::string_view expr,
    const ElementwiseOptions& options = {});

/// An operation of the inputs named, at least one.
Elementwise map(
    std::string_view name,
    std::string_view expr,
    const std::vector<std::string>& input_names,
    const ElementwiseOptions& options = {});

/// An operation from a function: "float f(float x, float y) {...}". Where there
/// are several, the last one, which may call those before it.
Elementwise jit(
    std::string_view function,
    const ElementwiseOptions& options = {});

} // namespace zmlx
