// SPDX-License-Identifier: MIT
#include "zmlx/dialect/rows_reads.h"

#include <algorithm>
#include <utility>

#include "zmlx/base/error.h"
#include "zmlx/dialect/kernel_pieces.h"

namespace zmlx::dialect {
namespace {

// More would not fit beside each other into a thread's registers.
constexpr size_t kMostHeld = 2;

// Element i of the row at index j.
std::string element(int i) {
  return concat("float(x", i, "[a", i, " + int64_t(j) * d", i, "])");
}

} // namespace

bool is_serial(const RowPass& pass) {
  return std::ranges::any_of(pass.reductions, [](const Reduction& made) {
    return made.combine == Combine::Serial;
  });
}

RowReads::RowReads(const RowProgram& program, const Elements& elements)
    : program_(program), elements_(elements), wide_(elements.wide) {}

// Floats f0, f1, ... of the packs that `used` marks, from index j on.
std::string RowReads::read_packs(const std::vector<char>& used) const {
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
std::string RowReads::each_of_pack(const std::string& text) const {
  return wide_ == 1 ? text
                    : concat(
                          "#pragma unroll\nfor (int v = 0; v < ",
                          wide_,
                          "; ++v) {\n",
                          text,
                          "}\n");
}

std::string RowReads::value_at_j(int i) const {
  return wide_ > 1 ? concat("f", i, "[v]") : element(i);
}

std::string RowReads::held_index() const {
  return wide_ > 1 ? concat("k * ", wide_, " + v") : "k";
}

// How many loops read each element; nothing where one runs in order.
std::vector<int> RowReads::loops_of_elements() const {
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
void RowReads::find_kept() {
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

std::string RowReads::holds() {
  const auto loops = loops_of_elements();
  std::string declares, reads, zeros;
  std::vector<char> used(loops.size());
  for (int i = 0; i < static_cast<int>(loops.size()); ++i) {
    if (loops[i] > 1 && held_.size() < kMostHeld) {
      held_.push_back(i);
      used[i] = 1;
      declares += concat("float h", i, "[", kElementsHeld, "];\n");
      reads += concat("h", i, "[", held_index(), "] = ", value_at_j(i), ";\n");
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
std::string RowReads::unrolled(const std::string& text) const {
  return concat(
      "#pragma unroll\nfor (int k = 0; k < ",
      kElementsHeld / wide_,
      "; ++k) {\nconst uint j = (lane + uint(k) * threads) * ",
      wide_,
      ";\n",
      text,
      "}\n");
}

std::string RowReads::walk(
    const Step& plain,
    const Step& held,
    const std::string& before,
    const std::string& after) const {
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
std::string RowReads::reads(const FlatExpression& expression, bool from_held)
    const {
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

std::string RowReads::serial_reads(const FlatExpression& expression) const {
  const auto used = used_inputs(expression);
  std::string text;
  for (int i = 0; i < program_.num_elements; ++i) {
    if (used[i]) {
      text += concat("const float e", i, " = ", element(i), ";\n");
    }
  }
  return text;
}

std::string RowReads::kept_register() const {
  return concat("kept[", held_index(), "]");
}

} // namespace zmlx::dialect
