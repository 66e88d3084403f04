// SPDX-License-Identifier: MIT
#include "zmlx/dialect/expression_kernel.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/dialect/print.h"

namespace zmlx::dialect {
namespace {

// "x0", "x1", ...
std::vector<std::string> numbered(std::string_view name, size_t count) {
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    names.push_back(concat(name, i));
  }
  return names;
}

// Which inputs an expression reads.
std::vector<char> used_inputs(const FlatExpression& expression) {
  std::vector<char> used(static_cast<size_t>(expression.num_inputs));
  for (const auto& step : expression.code) {
    if (step.op == Op::Input) {
      used[step.bits] = 1;
    }
  }
  return used;
}

std::string literal(float value) {
  FlatExpression constant;
  constant.code = {
      {.op = Op::Constant, .bits = std::bit_cast<uint32_t>(value)}};
  constant.outputs = {0};
  return print(constant, {});
}

class ElementwiseText {
 public:
  ElementwiseText(
      const FlatExpression& expression,
      std::span<const Layout> layouts,
      std::span<const std::string> types)
      : expression_(expression),
        layouts_(layouts),
        types_(types),
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
        "inline void zmlx_expression(",
        parameters,
        ") {\n",
        print_statements(expression_, inputs, results),
        "}\n");
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
  std::span<const std::string> types_;
  std::vector<char> used_;
};

// The operation of a Combine on two texts.
std::string
combined(Combine combine, const std::string& a, const std::string& b) {
  switch (combine) {
    case Combine::Sum:
      return concat(a, " + ", b);
    case Combine::Product:
      return concat(a, " * ", b);
    case Combine::Min:
      return concat("fmin(", a, ", ", b, ")");
    default:
      return concat("fmax(", a, ", ", b, ")");
  }
}

struct Fold {
  Combine combine;
  std::string_view name, neutral;
};
constexpr Fold kFolds[] = {
    {Combine::Sum, "zmlx_sum", "0.0f"},
    {Combine::Product, "zmlx_product", "1.0f"},
    {Combine::Min, "zmlx_min", "INFINITY"},
    {Combine::Max, "zmlx_max", "-INFINITY"}};

const Fold& fold_of(Combine combine) {
  return *std::ranges::find(kFolds, combine, &Fold::combine);
}

// Functions that combine a value of each thread of a group: in SIMD-groups,
// then their results in every SIMD-group alike.
std::string fold_functions() {
  std::string text;
  for (const auto& [combine, name, neutral] : kFolds) {
    const auto tree = concat(
        "  for (ushort o = 16; o > 0; o /= 2) {\n    v = ",
        combined(combine, "v", "simd_shuffle_xor(v, o)"),
        ";\n  }\n");
    text += concat(
        "inline float ",
        name,
        "(float v, threadgroup float* scratch, uint lane, uint threads) {\n",
        tree,
        "  if (threads <= 32) { return v; }\n"
        "  threadgroup_barrier(mem_flags::mem_threadgroup);\n"
        "  if (lane % 32 == 0) { scratch[lane / 32] = v; }\n"
        "  threadgroup_barrier(mem_flags::mem_threadgroup);\n"
        "  v = lane % 32 < threads / 32 ? scratch[lane % 32] : ",
        neutral,
        ";\n",
        tree,
        "  return v;\n}\n");
  }
  return text;
}

// More would not fit beside each other into a thread's registers.
constexpr size_t kMostHeld = 2;

class RowsText {
 public:
  RowsText(const RowProgram& program, std::span<const std::string> types)
      : program_(program),
        types_(types),
        num_inputs_(program.num_elements + program.num_row_values) {}

  std::string body(int axis_from_end) {
    std::string text = concat(places(axis_from_end), holds());
    for (int i = 0; i < program_.num_row_values; ++i) {
      const int x = program_.num_elements + i;
      text += concat("const float r", i, " = float(x", x, "[a", x, "]);\n");
      row_names_.push_back(concat("r", i));
    }
    for (const auto& pass : program_.passes) {
      text += is_serial(pass) ? serial_pass(pass) : parallel_pass(pass);
    }
    return text + ends();
  }

 private:
  // Where the row begins in each input (a0, ...) and in written outputs, and
  // the distance of its elements.
  std::string places(int axis_from_end) const {
    std::string starts, adds, steps;
    for (int i = 0; i < num_inputs_; ++i) {
      starts += concat("int64_t a", i, " = 0;\n");
      adds += concat("    a", i, " += k * x", i, "_strides[i];\n");
      if (i < program_.num_elements) {
        steps += concat("const int64_t d", i, " = x", i, "_strides[axis];\n");
      }
    }
    return concat(
        "threadgroup float scratch[32];\n"
        "const uint row = threadgroup_position_in_grid.x;\n"
        "const uint lane = thread_position_in_threadgroup.x;\n"
        "const uint threads = threads_per_threadgroup.x;\n"
        "const int axis = x0_ndim - ",
        axis_from_end,
        ";\nconst uint length = uint(x0_shape[axis]);\n",
        starts,
        "int64_t out = 0, out_step = 1, pitch = 1;\n"
        "uint rest = row;\n"
        "for (int i = x0_ndim - 1; i >= 0; --i) {\n"
        "  const uint size = uint(x0_shape[i]);\n"
        "  if (i == axis) {\n"
        "    out_step = pitch;\n"
        "  } else {\n"
        "    const int64_t k = int64_t(rest % size);\n"
        "    rest /= size;\n"
        "    out += k * pitch;\n",
        adds,
        "  }\n"
        "  pitch *= int64_t(size);\n"
        "}\n",
        steps);
  }

  static bool is_serial(const RowPass& pass) {
    return std::ranges::any_of(pass.reductions, [](const Reduction& made) {
      return made.combine == Combine::Serial;
    });
  }

  // Element i of the row at index j.
  static std::string element(int i) {
    return concat("float(x", i, "[a", i, " + int64_t(j) * d", i, "])");
  }

  // Reads elements that several loops need once, into registers h0, h1, ...,
  // where a row is short enough for its threads.
  std::string holds() {
    std::vector<int> loops(static_cast<size_t>(program_.num_elements));
    const auto count = [&](const FlatExpression& expression) {
      const auto used = used_inputs(expression);
      for (size_t i = 0; i < std::min(used.size(), loops.size()); ++i) {
        loops[i] += used[i];
      }
    };
    for (const auto& pass : program_.passes) {
      if (is_serial(pass)) {
        return "";
      }
      count(pass.values);
    }
    count(program_.write);
    std::string declares, reads;
    for (int i = 0; i < program_.num_elements; ++i) {
      if (loops[i] > 1 && held_.size() < kMostHeld) {
        held_.push_back(i);
        declares += concat("float h", i, "[", kElementsHeld, "];\n");
        reads += concat("h", i, "[k] = j < length ? ", element(i), " : 0;\n");
      }
    }
    return held_.empty() ? ""
                         : concat(
                               declares,
                               "const bool held = length <= threads * ",
                               kElementsHeld,
                               ";\nif (held) {\n",
                               unrolled(reads),
                               "}\n");
  }

  // text for k = 0, 1, ... and j, the k-th index of the thread.
  static std::string unrolled(const std::string& text) {
    return concat(
        "#pragma unroll\nfor (int k = 0; k < ",
        kElementsHeld,
        "; ++k) {\nconst uint j = lane + uint(k) * threads;\n",
        text,
        "}\n");
  }

  // text for each index j of the thread, with the elements that it reads.
  std::string walk(const FlatExpression& expression, const std::string& text)
      const {
    const std::string plain = concat(
        "for (uint j = lane; j < length; j += threads) {\n",
        reads(expression, false),
        text,
        "}\n");
    if (held_.empty()) {
      return plain;
    }
    return concat(
        "if (held) {\n",
        unrolled(concat(
            "if (j < length) {\n", reads(expression, true), text, "}\n")),
        "} else {\n",
        plain,
        "}\n");
  }

  // The elements that an expression reads, at index j.
  std::string reads(const FlatExpression& expression, bool from_held) const {
    const auto used = used_inputs(expression);
    std::string text;
    for (int i = 0; i < program_.num_elements; ++i) {
      if (used[i]) {
        const bool held = from_held && std::ranges::count(held_, i) > 0;
        text += concat(
            "const float e",
            i,
            " = ",
            held ? concat("h", i, "[k]") : element(i),
            ";\n");
      }
    }
    return text;
  }

  std::vector<std::string> element_names() const {
    auto names = numbered("e", static_cast<size_t>(program_.num_elements));
    names.insert(names.end(), row_names_.begin(), row_names_.end());
    return names;
  }

  // Totals become names for what follows.
  std::vector<std::string> name_totals(size_t count) {
    std::vector<std::string> names;
    for (size_t i = 0; i < count; ++i) {
      names.push_back(concat("s", num_totals_++));
    }
    row_names_.insert(row_names_.end(), names.begin(), names.end());
    return names;
  }

  std::string parallel_pass(const RowPass& pass) {
    const size_t count = pass.reductions.size();
    const auto inputs = element_names();
    const auto totals = name_totals(count);
    const auto values = numbered("v", count);
    std::string starts, declares, adds, ends;
    for (size_t i = 0; i < count; ++i) {
      const auto& [combine, init] = pass.reductions[i];
      const auto& fold = fold_of(combine);
      starts += concat("float ", totals[i], " = ", fold.neutral, ";\n");
      declares += concat("float ", values[i], ";\n");
      adds += concat(
          totals[i], " = ", combined(combine, totals[i], values[i]), ";\n");
      const std::string folded =
          concat(fold.name, "(", totals[i], ", scratch, lane, threads)");
      ends += concat(
          totals[i],
          " = ",
          combined(combine, concat("(", literal(init), ")"), folded),
          ";\n");
    }
    return concat(
        starts,
        walk(
            pass.values,
            concat(
                declares, print_statements(pass.values, inputs, values), adds)),
        ends);
  }

  // One thread walks along the row and tells the others.
  std::string serial_pass(const RowPass& pass) {
    const size_t count = pass.reductions.size();
    auto inputs = element_names();
    const auto totals = name_totals(count);
    inputs.insert(inputs.end(), totals.begin(), totals.end());
    const auto values = numbered("v", count);
    std::string starts, declares, adds, tells;
    for (size_t i = 0; i < count; ++i) {
      const auto& [combine, init] = pass.reductions[i];
      starts += concat("float ", totals[i], " = ", literal(init), ";\n");
      declares += concat("float ", values[i], ";\n");
      adds += concat(
          totals[i],
          " = ",
          combine == Combine::Serial ? values[i]
                                     : combined(combine, totals[i], values[i]),
          ";\n");
      tells += concat(
          "threadgroup_barrier(mem_flags::mem_threadgroup);\n"
          "if (lane == 0) { scratch[0] = ",
          totals[i],
          "; }\n"
          "threadgroup_barrier(mem_flags::mem_threadgroup);\n",
          totals[i],
          " = scratch[0];\n");
    }
    return concat(
        starts,
        "if (lane == 0) {\nfor (uint j = 0; j < length; ++j) {\n",
        reads(pass.values, false),
        declares,
        print_statements(pass.values, inputs, values),
        adds,
        "}\n}\n",
        tells);
  }

  std::string ends() const {
    const size_t num_written = program_.write.outputs.size();
    const size_t num_finished = program_.finish.outputs.size();
    std::string text;
    if (num_written > 0) {
      const auto values = numbered("v", num_written);
      std::string declares, stores;
      for (size_t i = 0; i < num_written; ++i) {
        declares += concat("float ", values[i], ";\n");
        stores += store(i, values[i], "out + int64_t(j) * out_step");
      }
      text += walk(
          program_.write,
          concat(
              declares,
              print_statements(program_.write, element_names(), values),
              stores));
    }
    if (num_finished > 0) {
      const auto values = numbered("v", num_finished);
      std::string declares, stores;
      for (size_t i = 0; i < num_finished; ++i) {
        declares += concat("float ", values[i], ";\n");
        stores += store(num_written + i, values[i], "row");
      }
      text += concat(
          "if (lane == 0) {\n",
          declares,
          print_statements(program_.finish, row_names_, values),
          stores,
          "}\n");
    }
    return text;
  }

  std::string
  store(size_t output, const std::string& value, std::string_view at) const {
    return concat(
        "y",
        output,
        "[",
        at,
        "] = static_cast<",
        types_[output],
        ">(",
        value,
        ");\n");
  }

  const RowProgram& program_;
  std::span<const std::string> types_;
  int num_inputs_;
  int num_totals_ = 0;
  std::vector<std::string> row_names_;
  std::vector<int> held_; // element inputs that are kept in registers
};

} // namespace

KernelBody elementwise_kernel(
    const FlatExpression& expression,
    std::span<const Layout> inputs,
    std::span<const std::string> types,
    bool scalar) {
  const ElementwiseText text(expression, inputs, types);
  KernelBody made{text.header(), {}};
  if (scalar) {
    made.body = concat(
        "if (thread_position_in_grid.x == 0) {\n",
        text.steps({"0"}, true),
        "}\n");
    return made;
  }
  const auto at = numbered("at", kElementsPerThread);
  std::string places;
  for (size_t k = 1; k < at.size(); ++k) {
    places += concat("const uint ", at[k], " = ", at[k - 1], " + step;\n");
  }
  made.body = concat(
      "uint size = 1;\n"
      "for (int i = 0; i < x0_ndim; ++i) {\n  size *= uint(x0_shape[i]);\n}\n"
      "const uint step = threads_per_grid.x;\n"
      "const uint at0 = thread_position_in_grid.x;\n",
      places,
      "if (",
      at.back(),
      " < size && ",
      at.back(),
      " > at0) {\n",
      text.steps(at, false),
      "} else {\nfor (uint at = at0; at < size; at += step) {\n",
      text.steps({"at"}, false),
      "}\n}\n");
  return made;
}

KernelBody rows_kernel(
    const RowProgram& program,
    std::span<const std::string> types,
    int axis_from_end) {
  return {
      concat(expression_prelude(), fold_functions()),
      RowsText(program, types).body(axis_from_end)};
}

} // namespace zmlx::dialect
