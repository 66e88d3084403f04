// SPDX-License-Identifier: MIT
// How the text of a row's kernel reads the row's elements: one by one or in
// packs, and once for several loops where a row is short.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "zmlx/dialect/expression_kernel.h"
#include "zmlx/dialect/kept_value.h"

namespace zmlx::dialect {

/// Whether a pass takes a row's elements in order.
bool is_serial(const RowPass& pass);

class RowReads {
 public:
  /// Both must outlive it.
  RowReads(const RowProgram& program, const Elements& elements);

  /// Reads elements that several loops need once, into registers h0, h1, ...,
  /// where a row is short enough for its threads. Called before the others.
  std::string holds();

  /// What a loop does with each element.
  struct Step {
    const FlatExpression& expression; // the elements that it reads
    std::string text;
  };

  /// A step for each index of the thread; before and after it what goes with a
  /// pack of them, at j. Where elements are held, another step.
  std::string walk(
      const Step& plain,
      const Step& held,
      const std::string& before = "",
      const std::string& after = "") const;

  /// The elements that an expression reads, at index j of one thread.
  std::string serial_reads(const FlatExpression& expression) const;

  /// What the last pass leaves in registers for those held, at
  /// kept_register(); none: nothing.
  const std::optional<KeptValue>& kept() const {
    return kept_;
  }
  std::string kept_register() const;

 private:
  std::string read_packs(const std::vector<char>& used) const;
  std::string each_of_pack(const std::string& text) const;
  std::string value_at_j(int i) const;
  std::string held_index() const;
  std::vector<int> loops_of_elements() const;
  void find_kept();
  std::string unrolled(const std::string& text) const;
  std::string reads(const FlatExpression& expression, bool from_held) const;

  const RowProgram& program_;
  const Elements& elements_;
  int wide_;
  std::vector<int> held_; // element inputs that are kept in registers
  std::optional<KeptValue> kept_;
};

} // namespace zmlx::dialect
