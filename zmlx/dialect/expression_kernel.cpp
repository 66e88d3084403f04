// SPDX-License-Identifier: MIT
#include "zmlx/dialect/expression_kernel.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/dialect/kernel_pieces.h"
#include "zmlx/dialect/print.h"

namespace zmlx::dialect {
namespace {

class ElementwiseText {
 public:
  ElementwiseText(
      const FlatExpression& expression,
      std::span<const Layout> layouts,
      const Elements& elements)
      : expression_(expression),
        layouts_(layouts),
        elements_(elements),
        types_(elements.outputs),
        used_(used_inputs(expression)) {}

  std::string header() const {
    const auto inputs = numbered("a", used_.size());
    const auto results = numbered("r", types_.size());
    std::string parameters;
    for (const auto& input : inputs) {
      parameters += concat(parameters.empty() ? "" : ", ", "float ", input);
    }
    for (const auto& result : results) {
      parameters += concat(", thread float& ", result);
    }
    return concat(
        expression_prelude(),
        elements_.wide > 1 ? kPack : "",
        "inline void zmlx_expression(",
        parameters,
        ") {\n",
        print_statements(expression_, inputs, results, is_narrow(types_)),
        "}\n");
  }

  // As steps(), of elements_.wide elements at each place.
  std::string wide_steps(const std::vector<std::string>& at) const {
    std::string reads, calls, stores;
    for (size_t k = 0; k < at.size(); ++k) {
      std::string widens, args, rounds;
      for (size_t i = 0; i < used_.size(); ++i) {
        const std::string name = concat("a", i, "_", k);
        const bool flat = used_[i] && layouts_[i] == Layout::Flat;
        if (flat) {
          const auto pack = pack_of(elements_.inputs[i], elements_.wide);
          reads += concat(
              "const ",
              pack,
              " p",
              name,
              " = ",
              pack_at(pack, concat("x", i), at[k], "const "),
              ";\n");
          widens += widened(name, concat("p", name), elements_.wide);
        } else {
          reads += concat(
              "const float ",
              name,
              " = ",
              used_[i] ? read(i, at[k], false) : "0.0f",
              ";\n");
        }
        args += concat(args.empty() ? "" : ", ", name, flat ? "[v]" : "");
      }
      for (size_t i = 0; i < types_.size(); ++i) {
        const auto pack = pack_of(types_[i], elements_.wide);
        const std::string name = concat("r", i, "_", k);
        widens += concat("float ", name, "[", elements_.wide, "];\n");
        args += concat(", ", name, "[v]");
        rounds += rounded(concat("p", name), pack, name);
        stores += concat(
            pack_at(pack, concat("y", i), at[k], ""), " = p", name, ";\n");
      }
      calls += concat(
          widens,
          "#pragma unroll\nfor (int v = 0; v < ",
          elements_.wide,
          "; ++v) {\nzmlx_expression(",
          args,
          ");\n}\n",
          rounds);
    }
    return reads + calls + stores;
  }

  // Reads, computes and stores elements at[0], at[1], ...: all reads first, so
  // that they are under way together.
  std::string steps(const std::vector<std::string>& at, bool scalar) const {
    std::string reads, calls, stores;
    for (size_t k = 0; k < at.size(); ++k) {
      std::string args;
      for (size_t i = 0; i < used_.size(); ++i) {
        const std::string name = concat("a", i, "_", k);
        reads += concat(
            "const float ",
            name,
            " = ",
            used_[i] ? read(i, at[k], scalar) : "0.0f",
            ";\n");
        args += concat(args.empty() ? "" : ", ", name);
      }
      for (size_t i = 0; i < types_.size(); ++i) {
        const std::string name = concat("r", i, "_", k);
        reads += concat("float ", name, ";\n");
        args += concat(", ", name);
        stores += concat(
            "y",
            i,
            "[",
            at[k],
            "] = static_cast<",
            types_[i],
            ">(",
            name,
            ");\n");
      }
      calls += concat("zmlx_expression(", args, ");\n");
    }
    return reads + calls + stores;
  }

 private:
  std::string read(size_t input, const std::string& at, bool scalar) const {
    const std::string x = concat("x", input);
    if (scalar) {
      return concat("float(", x, ")");
    }
    if (layouts_[input] == Layout::Single) {
      return concat("float(", x, "[0])");
    }
    return layouts_[input] == Layout::Flat ? concat("float(", x, "[", at, "])")
                                           : concat(
                                                 "float(",
                                                 x,
                                                 "[elem_to_loc<int64_t>(",
                                                 at,
                                                 ", ",
                                                 x,
                                                 "_shape, ",
                                                 x,
                                                 "_strides, ",
                                                 x,
                                                 "_ndim)])");
  }

  const FlatExpression& expression_;
  std::span<const Layout> layouts_;
  const Elements& elements_;
  const std::vector<std::string>& types_;
  std::vector<char> used_;
};

} // namespace

KernelBody elementwise_kernel(
    const FlatExpression& expression,
    std::span<const Layout> inputs,
    const Elements& elements,
    bool scalar) {
  const ElementwiseText text(expression, inputs, elements);
  KernelBody made{text.header(), {}};
  if (scalar) {
    made.body = concat(
        "if (thread_position_in_grid.x == 0) {\n",
        text.steps({"0"}, true),
        "}\n");
    return made;
  }
  const int wide = elements.wide;
  const int count = elements_per_thread(wide) / wide;
  const auto at = numbered("at", static_cast<size_t>(count));
  std::string places;
  for (size_t k = 1; k < at.size(); ++k) {
    places += concat("const uint ", at[k], " = ", at[k - 1], " + step;\n");
  }
  const bool strided = std::ranges::count(inputs, Layout::Strided) > 0;
  made.body = concat(
      strided ? "uint size = 1;\n"
                "for (int i = 0; i < x0_ndim; ++i) {\n"
                "  size *= uint(x0_shape[i]);\n}\n"
              : "const uint size = uint(x0_shape[0]);\n",
      "const uint step = threads_per_threadgroup.x * ",
      wide,
      ";\nconst uint at0 = threadgroup_position_in_grid.x * step * ",
      count,
      " + thread_position_in_threadgroup.x * ",
      wide,
      ";\n",
      places,
      "if (",
      at.back(),
      " + ",
      wide,
      " <= size) {\n",
      wide > 1 ? text.wide_steps(at) : text.steps(at, false),
      "} else {\nfor (uint k = 0; k < ",
      count,
      "; ++k) {\nconst uint first = at0 + k * step;\n",
      wide > 1 ? concat(
                     "if (first + ",
                     wide,
                     " <= size) {\n",
                     text.wide_steps({"first"}),
                     "continue;\n}\n")
               : "",
      "for (uint at = first; at < size && at - first < ",
      wide,
      "; ++at) {\n",
      text.steps({"at"}, false),
      "}\n}\n}\n");
  return made;
}

} // namespace zmlx::dialect
