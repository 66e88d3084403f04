// SPDX-License-Identifier: MIT
#include "zmlx/dialect/expression_kernel.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/dialect/kernel_pieces.h"
#include "zmlx/dialect/print.h"
#include "zmlx/dialect/rows_fold.h"
#include "zmlx/dialect/rows_reads.h"

namespace zmlx::dialect {
namespace {

std::string literal(float value) {
  FlatExpression constant;
  constant.code = {
      {.op = Op::Constant, .bits = std::bit_cast<uint32_t>(value)}};
  constant.outputs = {0};
  return print(constant, {});
}

constexpr int kScratch = 32; // SIMD-groups of a threadgroup

class RowsText {
 public:
  RowsText(const RowProgram& program, const Elements& elements)
      : program_(program),
        types_(elements.outputs),
        wide_(elements.wide),
        narrow_(is_narrow(elements.outputs)),
        num_inputs_(program.num_elements + program.num_row_values),
        reads_(program, elements) {}

  std::string body(int axis_from_end) {
    std::string text = concat(places(axis_from_end), reads_.holds());
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

  std::vector<std::string> element_names(bool with_kept = false) const {
    auto names = numbered("e", static_cast<size_t>(program_.num_elements));
    if (with_kept) {
      names.push_back(reads_.kept_register());
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
      return RowReads::Step{
          expression,
          concat(
              declares,
              print_statements(expression, inputs, results, narrow_),
              adds)};
    };
    const auto plain = step(pass.values, values);
    const auto& kept = reads_.kept();
    if (!kept || &pass != &program_.passes.back()) {
      return concat(starts, reads_.walk(plain, plain), ends);
    }
    auto results = values;
    results.push_back(reads_.kept_register());
    return concat(
        starts, reads_.walk(plain, step(kept->values, results)), ends);
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
        reads_.serial_reads(pass.values),
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
        return RowReads::Step{
            expression,
            concat(
                declares,
                print_statements(
                    expression, element_names(with_kept), values, narrow_),
                stores)};
      };
      const auto plain = step(program_.write, false);
      const auto& kept = reads_.kept();
      text += reads_.walk(
          plain, kept ? step(kept->write, true) : plain, packs, flushes);
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
  const std::vector<std::string>& types_;
  int wide_;
  bool narrow_;
  int num_inputs_;
  int num_totals_ = 0, num_folds_ = 0;
  std::vector<std::string> row_names_;
  RowReads reads_;
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
