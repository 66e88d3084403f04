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

std::string literal(float value) {
  FlatExpression constant;
  constant.code = {
      {.op = Op::Constant, .bits = std::bit_cast<uint32_t>(value)}};
  constant.outputs = {0};
  return print(constant, {});
}

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
// then their results, which every thread takes in one order. No two calls share
// scratch, so that one barrier is enough.
std::string fold_functions() {
  std::string text;
  for (const auto& [combine, name, neutral] : kFolds) {
    text += concat(
        "inline float ",
        name,
        "(float v, threadgroup float* scratch, uint lane, uint threads) {\n"
        "  for (ushort o = 16; o > 0; o /= 2) {\n    v = ",
        combined(combine, "v", "simd_shuffle_xor(v, o)"),
        ";\n  }\n"
        "  if (threads <= 32) { return v; }\n"
        "  if (lane % 32 == 0) { scratch[lane / 32] = v; }\n"
        "  threadgroup_barrier(mem_flags::mem_threadgroup);\n"
        "  v = scratch[0];\n"
        "  for (uint i = 1; i < threads / 32; ++i) {\n    v = ",
        combined(combine, "v", "scratch[i]"),
        ";\n  }\n"
        "  return v;\n}\n");
  }
  return text;
}

// More would not fit beside each other into a thread's registers.
constexpr size_t kMostHeld = 2;
constexpr int kScratch = 32; // SIMD-groups of a threadgroup

class RowsText {
 public:
  RowsText(const RowProgram& program, const Elements& elements)
      : program_(program),
        elements_(elements),
        types_(elements.outputs),
        wide_(elements.wide),
        narrow_(is_narrow(elements.outputs)),
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
        "threadgroup float scratch[",
        kScratch * std::max<size_t>(1, num_reductions()),
        "];\n"
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

  size_t num_reductions() const {
    size_t count = 0;
    for (const auto& pass : program_.passes) {
      count += pass.reductions.size();
    }
    return count;
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

  // Packs w0, w1, ... of the elements that `used` marks, from index j on.
  std::string read_packs(const std::vector<char>& used) const {
    std::string text;
    for (int i = 0; wide_ > 1 && i < program_.num_elements; ++i) {
      if (used[i]) {
        const auto& type = elements_.inputs[i];
        text += concat(
            "const kk_pack<",
            type,
            ", ",
            wide_,
            "> w",
            i,
            " = ",
            pack_at(
                type, wide_, concat("x", i), concat("a", i, " + j"), "const "),
            ";\n");
      }
    }
    return text;
  }

  // text for each element at j, of which the k-th pack has `v`.
  std::string each_of_pack(const std::string& text) const {
    return wide_ == 1 ? text
                      : concat(
                            "#pragma unroll\nfor (int v = 0; v < ",
                            wide_,
                            "; ++v) {\n",
                            text,
                            "}\n");
  }
  std::string value_at_j(int i) const {
    return wide_ > 1 ? concat("float(w", i, ".at[v])") : element(i);
  }
  std::string held_index() const {
    return wide_ > 1 ? concat("k * ", wide_, " + v") : "k";
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
    std::string declares, reads, zeros;
    std::vector<char> used(loops.size());
    for (int i = 0; i < program_.num_elements; ++i) {
      if (loops[i] > 1 && held_.size() < kMostHeld) {
        held_.push_back(i);
        used[i] = 1;
        declares += concat("float h", i, "[", kElementsHeld, "];\n");
        reads +=
            concat("h", i, "[", held_index(), "] = ", value_at_j(i), ";\n");
        zeros += concat("h", i, "[", held_index(), "] = 0;\n");
      }
    }
    if (held_.empty()) {
      return "";
    }
    return concat(
        declares,
        "const bool held = length <= threads * ",
        kElementsHeld,
        ";\nif (held) {\n",
        unrolled(concat(
            "if (j < length) {\n",
            read_packs(used),
            each_of_pack(reads),
            "} else {\n",
            each_of_pack(zeros),
            "}\n")),
        "}\n");
  }

  // text for k = 0, 1, ... and j, the k-th index of the thread.
  std::string unrolled(const std::string& text) const {
    return concat(
        "#pragma unroll\nfor (int k = 0; k < ",
        kElementsHeld / wide_,
        "; ++k) {\nconst uint j = (lane + uint(k) * threads) * ",
        wide_,
        ";\n",
        text,
        "}\n");
  }

  // text for each index of the thread, with the elements that it reads; before
  // and after it what goes with a pack of them, at j.
  std::string walk(
      const FlatExpression& expression,
      const std::string& text,
      const std::string& before = "",
      const std::string& after = "") const {
    const auto loop = [&](bool from_held) {
      auto used = used_inputs(expression);
      for (const int i : held_) {
        used[i] = used[i] && !from_held;
      }
      return concat(
          read_packs(used),
          before,
          each_of_pack(concat(reads(expression, from_held), text)),
          after);
    };
    const std::string plain = concat(
        "#pragma unroll 4\nfor (uint j = lane * ",
        wide_,
        "; j < length; j += threads * ",
        wide_,
        ") {\n",
        loop(false),
        "}\n");
    if (held_.empty()) {
      return plain;
    }
    return concat(
        "if (held) {\n",
        unrolled(concat("if (j < length) {\n", loop(true), "}\n")),
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
            held ? concat("h", i, "[", held_index(), "]") : value_at_j(i),
            ";\n");
      }
    }
    return text;
  }

  std::string serial_reads(const FlatExpression& expression) const {
    const auto used = used_inputs(expression);
    std::string text;
    for (int i = 0; i < program_.num_elements; ++i) {
      if (used[i]) {
        text += concat("const float e", i, " = ", element(i), ";\n");
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
      const std::string folded = concat(
          fold.name,
          "(",
          totals[i],
          ", scratch + ",
          kScratch * num_folds_++,
          ", lane, threads)");
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
                declares,
                print_statements(pass.values, inputs, values, narrow_),
                adds)),
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
        serial_reads(pass.values),
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
      std::string declares, stores, packs, flushes;
      for (size_t i = 0; i < num_written; ++i) {
        declares += concat("float ", values[i], ";\n");
        if (wide_ == 1) {
          stores += store(i, values[i], "out + int64_t(j) * out_step");
          continue;
        }
        packs += concat("kk_pack<", types_[i], ", ", wide_, "> o", i, ";\n");
        stores += concat(
            "o",
            i,
            ".at[v] = static_cast<",
            types_[i],
            ">(",
            values[i],
            ");\n");
        flushes += concat(
            pack_at(types_[i], wide_, concat("y", i), "out + j", ""),
            " = o",
            i,
            ";\n");
      }
      text += walk(
          program_.write,
          concat(
              declares,
              print_statements(
                  program_.write, element_names(), values, narrow_),
              stores),
          packs,
          flushes);
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
          print_statements(program_.finish, row_names_, values, narrow_),
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
  const Elements& elements_;
  const std::vector<std::string>& types_;
  int wide_;
  bool narrow_;
  int num_inputs_;
  int num_totals_ = 0, num_folds_ = 0;
  std::vector<std::string> row_names_;
  std::vector<int> held_; // element inputs that are kept in registers
};

} // namespace

KernelBody rows_kernel(
    const RowProgram& program,
    const Elements& elements,
    int axis_from_end) {
  return {
      concat(
          expression_prelude(),
          elements.wide > 1 ? kPack : "",
          fold_functions()),
      RowsText(program, elements).body(axis_from_end)};
}

} // namespace zmlx::dialect
