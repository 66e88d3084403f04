// SPDX-License-Identifier: MIT
// A kernel written in Metal, run on whatever MLX runs on.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// Threads along x, y and z.
struct KernelSize {
  int x = 1, y = 1, z = 1;
};

/// A template argument: a dtype (typename T), an int or a bool.
using KernelTemplateArgument = std::pair<std::string, mx::fast::TemplateArg>;

/// A value, or a function that makes it from a call's inputs, or neither.
template <class T>
class FromInputs {
 public:
  using Function = std::function<T(const std::vector<mx::array>&)>;

  FromInputs() = default;
  FromInputs(T value) : value_(std::move(value)) {}
  template <std::invocable<const std::vector<mx::array>&> F>
  FromInputs(F function) : value_(Function(std::move(function))) {}

  explicit operator bool() const {
    return value_.index() != 0;
  }
  T of(const std::vector<mx::array>& inputs) const {
    const auto* function = std::get_if<Function>(&value_);
    return function ? (*function)(inputs) : std::get<T>(value_);
  }

 private:
  std::variant<std::monostate, T, Function> value_;
};

/// What a kernel computes, in the conventions of MLX's metal_kernel: the body
/// reads the inputs by name (with <input>_shape, _strides and _ndim where it
/// mentions them) and Metal's thread attributes, and fills the outputs.
/// docs/dialect.md says which Metal runs everywhere.
struct KernelSource {
  std::string name = "";
  std::vector<std::string> inputs = {};
  std::vector<std::string> outputs = {"out"};
  std::string body = "";
  /// Functions, constants and structs in front of the kernel.
  std::string header = "";
  /// Copy strided inputs; else the body must use elem_to_loc.
  bool ensure_row_contiguous = true;
  /// Outputs are atomic<T>*.
  bool atomic_outputs = false;
};

/// How a kernel is called. What is not set here takes its default.
struct KernelLaunch {
  /// Threads in all; default: one for each element of the first output.
  FromInputs<KernelSize> grid = {};
  /// Threads of a group; default: the largest power of two up to 512 that is
  /// not above grid.x.
  FromInputs<KernelSize> threadgroup = {};
  /// Default: the shape of the first input, for every output.
  FromInputs<std::vector<mx::Shape>> output_shapes = {};
  /// Default: the dtype of the first input, for every output.
  FromInputs<std::vector<mx::Dtype>> output_dtypes = {};
  FromInputs<std::vector<KernelTemplateArgument>> templates = {};
  /// What outputs hold before the kernel runs; default: anything.
  std::optional<float> init_value = std::nullopt;
};

/// A raw kernel. A call builds one MLX primitive on the default device: Metal
/// compiles the text as it is, CUDA and the CPU compile a translation. Shapes
/// are arguments, so only new dtypes and template arguments compile again.
/// A call throws std::invalid_argument for what cannot be launched, and on the
/// CPU CompileError with the author's line, before anything runs.
/// vmap runs the kernel once for each element and stacks the results.
class Kernel {
 public:
  /// Gradients of all inputs, from inputs, cotangents and outputs.
  using Vjp = std::function<std::vector<mx::array>(
      const std::vector<mx::array>& inputs,
      const std::vector<mx::array>& cotangents,
      const std::vector<mx::array>& outputs)>;

  /// Throws std::invalid_argument for names that are no identifiers or not
  /// unique, and for a body that cannot be cut into tokens.
  explicit Kernel(KernelSource source, KernelLaunch launch = {});

  /// What is set in `launch` goes before what the constructor was given.
  std::vector<mx::array> operator()(
      const std::vector<mx::array>& inputs,
      const KernelLaunch& launch = {}) const;

  /// The same kernel with a gradient: called for vjp and grad.
  Kernel custom_vjp(Vjp vjp) const;

  /// The same kernel in checked mode or out of it, whatever
  /// set_checked_kernels says. A checked call runs at once, on the CPU, and
  /// throws KernelCheckError for what it finds.
  Kernel checked(bool on = true) const;

  const KernelSource& source() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

/// What the checked mode found: one sentence a line.
struct KernelCheckError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Turns the checked mode of every kernel on or off; at start it is on if
/// ZMLX_CHECK_KERNELS is 1.
void set_checked_kernels(bool on);

} // namespace zmlx
