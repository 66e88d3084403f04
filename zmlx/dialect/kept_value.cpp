// SPDX-License-Identifier: MIT
#include "zmlx/dialect/kept_value.h"

#include <algorithm>
#include <vector>

namespace zmlx::dialect {
namespace {

using Code = std::vector<Instruction>;

bool is_leaf(const Instruction& instruction) {
  return instruction.op == Op::Constant || instruction.op == Op::Input;
}

// For each instruction of `code` the one of `other` that computes the same, or
// -1. Inputs of the same number are the same.
std::vector<int> matches(const Code& code, const Code& other) {
  std::vector<int> found(code.size(), -1);
  for (size_t i = 0; i < code.size(); ++i) {
    Instruction wanted = code[i];
    bool known = true;
    for (int& arg : wanted.args) {
      if (arg >= 0) {
        arg = found[arg];
        known = known && arg >= 0;
      }
    }
    const auto at = std::find(other.begin(), other.end(), wanted);
    if (known && at != other.end()) {
      found[i] = static_cast<int>(at - other.begin());
    }
  }
  return found;
}

// The instructions that `root` needs, itself included.
std::vector<bool> needed(const Code& code, const std::vector<int>& roots) {
  std::vector<bool> needs(code.size(), false);
  for (int root : roots) {
    needs[root] = true;
  }
  for (size_t i = code.size(); i-- > 0;) {
    for (int arg : code[i].args) {
      if (needs[i] && arg >= 0) {
        needs[arg] = true;
      }
    }
  }
  return needs;
}

// Steps for each element that a value takes.
int steps(const Code& code, int root, int num_elements) {
  const auto needs = needed(code, {root});
  std::vector<bool> varies(code.size(), false);
  int count = 0;
  for (size_t i = 0; i < code.size(); ++i) {
    varies[i] = code[i].op == Op::Input &&
        static_cast<int>(code[i].bits) < num_elements;
    for (int arg : code[i].args) {
      varies[i] = varies[i] || (arg >= 0 && varies[arg]);
    }
    count += needs[i] && varies[i] && !is_leaf(code[i]);
  }
  return count;
}

// The expression with instruction `root` read from input `number`, to which
// later inputs make room.
FlatExpression with_input(FlatExpression from, int root, int number) {
  for (auto& instruction : from.code) {
    if (instruction.op == Op::Input &&
        static_cast<int>(instruction.bits) >= number) {
      ++instruction.bits;
    }
  }
  from.code[root] = {.op = Op::Input, .bits = static_cast<uint32_t>(number)};
  const auto needs = needed(from.code, from.outputs);
  FlatExpression to;
  to.num_inputs = from.num_inputs + 1;
  std::vector<int> place(from.code.size(), -1);
  for (size_t i = 0; i < from.code.size(); ++i) {
    if (needs[i]) {
      place[i] = static_cast<int>(to.code.size());
      to.code.push_back(from.code[i]);
      for (int& arg : to.code.back().args) {
        arg = arg < 0 ? arg : place[arg];
      }
    }
  }
  for (int output : from.outputs) {
    to.outputs.push_back(place[output]);
  }
  return to;
}

} // namespace

std::optional<KeptValue> find_kept_value(const RowProgram& program) {
  const auto& write = program.write;
  int best = 1, pass = -1, root = -1, kept = -1; // one step is no gain
  for (size_t p = 0; p < program.passes.size(); ++p) {
    const auto found = matches(write.code, program.passes[p].values.code);
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i] < 0 || write.code[i].type != Type::Float) {
        continue;
      }
      const int saved =
          steps(write.code, static_cast<int>(i), program.num_elements);
      if (saved > best) {
        best = saved;
        pass = static_cast<int>(p);
        root = static_cast<int>(i);
        kept = found[i];
      }
    }
  }
  if (pass < 0) {
    return std::nullopt;
  }
  auto values = program.passes[pass].values;
  values.outputs.push_back(kept);
  return KeptValue{
      pass, std::move(values), with_input(write, root, program.num_elements)};
}

} // namespace zmlx::dialect
