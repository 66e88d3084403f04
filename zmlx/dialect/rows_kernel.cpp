// SPDX-License-Identifier: MIT
#include "zmlx/dialect/expression_kernel.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/dialect/kept_value.h"
#include "zmlx/dialect/kernel_pieces.h"
#include "zmlx/dialect/print.h"
#include "zmlx/dialect/rows_fold.h"

namespace zmlx::dialect {
namespace {

std::string literal(float value) {
  FlatExpression constant;
  constant.code = {
      {.op = Op::Constant, .bits = std::bit_cast<uint32_t>(value)}};
  constant.outputs = {0};
  return print(constant, {});
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
    std::string starts, adds, steps, rows;
    for (int i = 0; i < num_inputs_; ++i) {
      starts += concat("int64_t a", i, " = 0;\n");
      rows += concat("  a", i, " = int64_t(row) * x", i, "_strides[0];\n");
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
        "if (x0_ndim == 2 && axis == 1) {\n",
        rows,
        "  out = int64_t(row) * int64_t(length);\n"
        "} else {\n"
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
        "}\n}\n",
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

  // Floats f0, f1, ... of the packs that `used` marks, from index j on.
  std::string read_packs(const std::vector<char>& used) const {
    std::string text;
    for (int i = 0; wide_ > 1 && i < program_.num_elements; ++i) {
      if (used[i]) {
        const auto pack = pack_of(elements_.inputs[i], wide_);
        text += concat(
            "const ",
            pack,
            " w",
            i,
            " = ",
            pack_at(pack, concat("x", i), concat("a", i, " + j"), "const "),
            ";\n",
            widened(concat("f", i), concat("w", i), wide_));
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
    return wide_ > 1 ? concat("f", i, "[v]") : element(i);
  }
  std::string held_index() const {
    return wide_ > 1 ? concat("k * ", wide_, " + v") : "k";
  }

  // How many loops read each element; nothing where one runs in order.
  std::vector<int> loops_of_elements() const {
    std::vector<int> loops(static_cast<size_t>(program_.num_elements));
    const auto count = [&](const FlatExpression& expression) {
      const auto used = used_inputs(expression);
      for (size_t i = 0; i < std::min(used.size(), loops.size()); ++i) {
        loops[i] += used[i];
      }
    };
    for (const auto& pass : program_.passes) {
      if (is_serial(pass)) {
        return {};
      }
      count(pass.values);
    }
    count(program_.write);
    return loops;
  }

  // Whether what the last pass computes can stand in the registers of held
  // elements, which nothing reads after it.
  void find_kept() {
    auto found = find_kept_value(program_);
    if (!found || found->pass + 1 != static_cast<int>(program_.passes.size())) {
      return;
    }
    const auto used = used_inputs(found->write);
    for (const int i : held_) {
      if (used[i]) {
        return;
      }
    }
    kept_ = std::move(found);
  }

  // Reads elements that several loops need once, into registers h0, h1, ...,
  // where a row is short enough for its threads.
  std::string holds() {
    const auto loops = loops_of_elements();
    std::string declares, reads, zeros;
    std::vector<char> used(loops.size());
    for (int i = 0; i < static_cast<int>(loops.size()); ++i) {
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
    find_kept();
    if (kept_) {
      declares += concat("float kept[", kElementsHeld, "];\n");
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

  // What a loop does with each element.
  struct Step {
    const FlatExpression& expression; // the elements that it reads
    std::string text;
  };

  // A step for each index of the thread; before and after it what goes with a
  // pack of them, at j. Where elements are held, another step.
  std::string walk(
      const Step& plain,
      const Step& held,
      const std::string& before = "",
      const std::string& after = "") const {
    const auto loop = [&](const Step& step, bool from_held) {
      auto used = used_inputs(step.expression);
      used.resize(static_cast<size_t>(program_.num_elements));
      for (const int i : held_) {
        used[i] = used[i] && !from_held;
      }
      return concat(
          read_packs(used),
          before,
          each_of_pack(concat(reads(step.expression, from_held), step.text)),
          after);
    };
    const std::string text = concat(
        "#pragma unroll 4\nfor (uint j = lane * ",
        wide_,
        "; j < length; j += threads * ",
        wide_,
        ") {\n",
        loop(plain, false),
        "}\n");
    if (held_.empty()) {
      return text;
    }
    return concat(
        "if (held) {\n",
        unrolled(concat("if (j < length) {\n", loop(held, true), "}\n")),
        "} else {\n",
        text,
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

  std::vector<std::string> element_names(bool with_kept = false) const {
    auto names = numbered("e", static_cast<size_t>(program_.num_elements));
    if (with_kept) {
      names.push_back(concat("kept[", held_index(), "]"));
    }
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
    const auto step = [&](const FlatExpression& expression,
                          const std::vector<std::string>& results) {
      return Step{
          expression,
          concat(
              declares,
              print_statements(expression, inputs, results, narrow_),
              adds)};
    };
    const auto plain = step(pass.values, values);
    if (!kept_ || &pass != &program_.passes.back()) {
      return concat(starts, walk(plain, plain), ends);
    }
    auto results = values;
    results.push_back(concat("kept[", held_index(), "]"));
    return concat(starts, walk(plain, step(kept_->values, results)), ends);
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
        const auto pack = pack_of(types_[i], wide_);
        packs += concat("float o", i, "[", wide_, "];\n");
        stores += concat("o", i, "[v] = ", values[i], ";\n");
        flushes += concat(
            rounded(concat("q", i), pack, concat("o", i)),
            pack_at(pack, concat("y", i), "out + j", ""),
            " = q",
            i,
            ";\n");
      }
      const auto step = [&](const FlatExpression& expression, bool with_kept) {
        return Step{
            expression,
            concat(
                declares,
                print_statements(
                    expression, element_names(with_kept), values, narrow_),
                stores)};
      };
      const auto plain = step(program_.write, false);
      text +=
          walk(plain, kept_ ? step(kept_->write, true) : plain, packs, flushes);
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
  std::optional<KeptValue> kept_;
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
