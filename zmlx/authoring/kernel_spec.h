// SPDX-License-Identifier: MIT
// What the catalog knows of a kernel: enough to test it, to time it and to
// print its page.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "zmlx/authoring/arrays.h"

namespace zmlx {

/// What a kernel takes besides arrays, by name: {"eps", 1e-5}.
using Params = std::map<std::string, double>;
using KernelFunction =
    std::function<Arrays(const Arrays& inputs, const Params& params)>;

/// An input or output.
struct KernelArray {
  std::string name;
  std::string contract; // "(..., dim) float"
  /// Any values and strides make sense in it: checks put ties, NaN, infinities
  /// and strided views there. Not so in packed weights.
  bool plain = true;
  /// run also works without it; it then stands behind all that must be there.
  bool optional = false;
};

struct KernelParam {
  std::string name, meaning;
  /// What Python takes when it is not given.
  std::optional<double> standard = std::nullopt;
};

/// One set of shapes on which a kernel is checked or timed.
struct KernelCase {
  mx::Dtype dtype = mx::float32; // of the plain inputs
  std::vector<mx::Shape> shapes; // one an input
  Params params = {};
};

/// "float32 (3,193) (193) eps=1e-05".
std::string to_text(const KernelCase& one);

/// "float32", "bfloat16", ...
std::string dtype_name(mx::Dtype dtype);

/// What a call must move and compute at least.
struct Traffic {
  double bytes = 0, flops = 0;
};

/// Which special values a kernel passes on as its reference does.
enum class Specials { kAll, kNan, kNone };

struct KernelSpec {
  std::string family; // its folder
  std::string name, summary;
  /// How it is called in C++.
  std::string call;
  /// Its places in Python below zmlx.kernels where that is not family.name, as
  /// "norms.rmsnorm" or "softmax.a; attention.b".
  std::string python = "";
  std::vector<KernelArray> inputs, outputs;
  std::vector<KernelParam> params = {};
  KernelFunction run = nullptr;
  /// The same of composed MLX operations; checked in float64, timed as it is.
  KernelFunction reference = nullptr;
  /// Places of the inputs in which run is differentiable, as checked against
  /// MLX's differentiation of the reference.
  std::vector<int> gradient = {};
  bool gpu = true; // false: it runs on the CPU only

  std::vector<KernelCase> cases;
  std::vector<KernelCase> bench; // timed by `zmlx bench`
  /// Inputs of a case; null: normal values of its dtype and shapes.
  std::function<Arrays(const KernelCase& one, uint64_t seed)> make_inputs =
      nullptr;
  /// Null: inputs read once, outputs written once, no flops told.
  std::function<Traffic(const Arrays& inputs, const Arrays& outputs)> traffic =
      nullptr;

  /// How many terms an output sums. 1: each value is held to its own size;
  /// more: to the largest of its array, which cancellation makes necessary.
  std::function<int64_t(const KernelCase& one)> terms = nullptr;
  /// Each output's root of the sum of its terms' squares, for outputs that may
  /// all cancel: they are held to the largest of these where it is more than
  /// the largest of the array. Null: the array has some that do not.
  KernelFunction term_sizes = nullptr;
  /// Float32 rounding errors allowed, besides those that terms make.
  double ulps = 8;
  /// What comes out where the reference gives it: NaN and infinities, or only
  /// NaN, or neither for sure.
  Specials specials = Specials::kAll;
};

/// Inputs of a case as the spec makes them.
Arrays
make_inputs(const KernelSpec& spec, const KernelCase& one, uint64_t seed);

/// Traffic of a call as the spec counts it.
Traffic
traffic_of(const KernelSpec& spec, const Arrays& inputs, const Arrays& outputs);

/// float32, float16 and bfloat16 for each list of shapes.
std::vector<KernelCase> cases_of(
    const std::vector<std::vector<mx::Shape>>& shapes,
    const Params& params = {});

} // namespace zmlx
