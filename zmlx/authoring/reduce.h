// SPDX-License-Identifier: MIT
// Row operations from a few lines of text: reductions, and maps that need
// totals of their row.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

class Rows;

/// Text for reduce(), as {.init = "0.0f", .update = "acc + v * v",
/// .finalize = "sqrt(acc)"}.
struct ReduceSpec {
  /// What `acc` starts with: a constant.
  std::string init;
  /// The next `acc`, from `acc` and the element `v`.
  std::string update;
  /// The result, from `acc` (also called `s`) and `D`, the row's length.
  std::string finalize = "acc";
  /// Used in errors and by the profiler.
  std::string name = "reduce";
  /// Functions that the texts may call.
  std::string header = {};
  /// Names of the inputs, which broadcast together.
  std::vector<std::string> inputs = {"v"};
  /// The axis along which rows lie.
  int axis = -1;
  /// Whether the result keeps that axis, with length 1.
  bool keepdims = false;
};

/// One walk along the row for map_reduce().
struct MapReducePass {
  std::string init;
  /// The next total, from the old one (`acc1` in pass1, `acc2` in pass2), the
  /// element and, in pass2, `s1`.
  std::string update;
  /// How totals `a` and `b` of two parts of a row combine. It must say what
  /// update does; may be left out.
  std::string reduce = {};
};

/// Text for map_reduce(), as for softmax
/// {.pass1 = {"-INFINITY", "max(acc1, x)", "max(a, b)"},
///  .pass2 = {"0.0f", "acc2 + exp(x - s1)", "a + b"},
///  .write = "exp(x - s1) / s2"}.
struct MapReduceSpec {
  MapReducePass pass1;
  /// Without text when one total is enough.
  MapReducePass pass2 = {};
  /// The result for each element, from it, the totals `s1` and `s2`, and `D`.
  std::string write;
  std::string name = "map_reduce";
  std::string header = {};
  std::vector<std::string> inputs = {"x"};
  int axis = -1;
};

/// A total of the row for row_operation().
struct RowTotal {
  /// What later texts call it.
  std::string name;
  std::string init;
  /// The next total, from the old one (`acc`), the inputs, `D` and the totals
  /// before this one.
  std::string update;
};

/// Text for row_operation(): any number of totals and of results, as for the
/// norm of a row and the row divided by it
/// {.inputs = {"x"}, .totals = {{"sum", "0.0f", "acc + x * x"}},
///  .write = {"x * rsqrt(sum)"}, .finish = {"sqrt(sum)"}}.
struct RowSpec {
  std::string name = "row_operation";
  /// Inputs with a value for each element; they broadcast together.
  std::vector<std::string> inputs;
  /// Inputs with one value for the row: length 1 along the axis.
  std::vector<std::string> row_inputs = {};
  std::vector<RowTotal> totals = {};
  /// Results for each element, from it, row inputs, totals and `D`.
  std::vector<std::string> write = {};
  /// Results for the row, from row inputs, totals and `D`; they keep the axis,
  /// with length 1.
  std::vector<std::string> finish = {};
  std::string header = {};
  int axis = -1;
};

/// An operation on rows; call it on arrays.
///
/// Takes the arrays that Elementwise takes, of at least one dimension. Totals
/// are float32. Updates that are sums, products, minima or maxima, as acc + f,
/// acc * f, max(acc, f) or acc < f ? f : acc with f any expression without acc,
/// run in any order, in parallel, and so do their derivatives. Others run in
/// the order of the row; their derivatives take a step in MLX's graph for each
/// element, for rows of at most 16384. vjp, jvp, vmap, higher derivatives and
/// compile of MLX work on it.
class RowOperation {
 public:
  /// One array for each of input_names(), in that order. Throws
  /// std::invalid_argument for another number, for scalars and for shapes that
  /// do not broadcast.
  mx::array operator()(
      const std::vector<mx::array>& inputs,
      mx::StreamOrDevice s = {}) const;
  mx::array operator()(const mx::array& x) const {
    return (*this)(std::vector<mx::array>{x});
  }
  mx::array operator()(const mx::array& a, const mx::array& b) const {
    return (*this)(std::vector<mx::array>{a, b});
  }

  /// Every result, those of write first, with a dtype for each; float32 and
  /// narrower. Where dtypes is empty all have the type that Elementwise's
  /// result would have.
  std::vector<mx::array> results(
      const std::vector<mx::array>& inputs,
      std::vector<mx::Dtype> dtypes = {},
      mx::StreamOrDevice s = {}) const;

  const std::vector<std::string>& input_names() const {
    return names_;
  }

 private:
  RowOperation() = default;
  friend RowOperation reduce(const ReduceSpec& spec);
  friend RowOperation map_reduce(const MapReduceSpec& spec);
  friend RowOperation row_operation(const RowSpec& spec);

  std::shared_ptr<const Rows> rows_;
  std::vector<std::string> names_; // elements, then row inputs
  int axis_ = -1;
  bool reduces_ = false;
  bool keepdims_ = false;
};

/// A reduction of rows to one value each. Of a row without elements the result
/// is finalize(init). Throws std::invalid_argument pointing at the word that is
/// wrong.
RowOperation reduce(const ReduceSpec& spec);

/// A value for each element, from it and one or two totals of its row.
RowOperation map_reduce(const MapReduceSpec& spec);

/// Any number of values for each element and for the row. The walks along the
/// row are as few as the totals' use of each other allows.
RowOperation row_operation(const RowSpec& spec);

} // namespace zmlx
