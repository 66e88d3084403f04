// SPDX-License-Identifier: MIT
#include "zmlx/dialect/row_graph.h"

#include <algorithm>

namespace zmlx::dialect {
namespace {

using Id = Graph::Id;

// Inputs are numbered by kind while the numbers of each kind still grow.
constexpr int kKind = 1 << 20;
enum Kind { kElement, kRowValue, kTotal, kRunning };

Kind kind_of(const Instruction& input) {
  return static_cast<Kind>(input.bits / kKind);
}
int number_of(const Instruction& input) {
  return static_cast<int>(input.bits % kKind);
}

// For each node whether it, or what it is made from, holds.
template <class Holds>
std::vector<char> reachable(const Graph& graph, Holds&& holds) {
  std::vector<char> marks(static_cast<size_t>(graph.size()));
  for (Id id = 0; id < graph.size(); ++id) {
    const auto& node = graph.at(id);
    marks[id] = holds(id);
    for (int i = 0; i < arity(node.op); ++i) {
      marks[id] |= marks[node.args[i]];
    }
  }
  return marks;
}

} // namespace

struct RowGraph::Schedule {
  std::vector<int> pass; // of each total; -1 when nothing needs it
  std::vector<int> order; // totals by pass: their numbers in the program
  std::vector<int> place; // where a total is in order
  int num_passes = 0;
};

RowGraph::RowGraph(const RowProgram& program)
    : RowGraph(program.num_elements, program.num_row_values) {
  std::vector<Id> rows;
  std::vector<Id> inputs;
  for (int i = 0; i < num_elements_; ++i) {
    inputs.push_back(element(i));
  }
  for (int i = 0; i < num_row_values_; ++i) {
    rows.push_back(row_value(i));
  }
  inputs.insert(inputs.end(), rows.begin(), rows.end());
  for (const auto& pass : program.passes) {
    const int first = static_cast<int>(totals_.size());
    auto with_running = inputs;
    for (size_t i = 0; i < pass.reductions.size(); ++i) {
      with_running.push_back(
          graph_.input(kRunning * kKind + first + static_cast<int>(i)));
    }
    const auto values = graph_.append(pass.values, with_running);
    for (size_t i = 0; i < values.size(); ++i) {
      const auto& [combine, init] = pass.reductions[i];
      totals_.push_back({combine, init, values[i]});
    }
    for (size_t i = 0; i < values.size(); ++i) {
      inputs.push_back(total(first + static_cast<int>(i)));
      rows.push_back(inputs.back());
    }
  }
  write = graph_.append(program.write, inputs);
  finish = graph_.append(program.finish, rows);
}

Id RowGraph::element(int number) {
  num_elements_ = std::max(num_elements_, number + 1);
  return graph_.input(kElement * kKind + number);
}

Id RowGraph::row_value(int number) {
  num_row_values_ = std::max(num_row_values_, number + 1);
  return graph_.input(kRowValue * kKind + number);
}

Id RowGraph::total(int number) {
  return graph_.input(kTotal * kKind + number);
}

Id RowGraph::running() {
  return graph_.input(kRunning * kKind + static_cast<int>(totals_.size()));
}

int RowGraph::add_total(Combine combine, float init, Id value) {
  const auto equal = [&](const Total& other) {
    return combine != Combine::Serial && other.combine == combine &&
        other.init == init && other.value == value;
  };
  const auto found = std::find_if(totals_.begin(), totals_.end(), equal);
  if (found != totals_.end()) {
    return static_cast<int>(found - totals_.begin());
  }
  totals_.push_back({combine, init, value});
  return static_cast<int>(totals_.size()) - 1;
}

int RowGraph::add_update(float init, Id update) {
  const auto known = recognize_update(graph_, update, running());
  return known ? add_total(known->combine, init, known->value)
               : add_total(Combine::Serial, init, update);
}

RowGraph::Schedule RowGraph::schedule() const {
  const int count = static_cast<int>(totals_.size());
  Schedule made;
  made.pass.assign(totals_.size(), -1);
  made.place.assign(totals_.size(), -1);
  // Which totals each value is made from; a total uses only earlier ones.
  std::vector<std::vector<char>> uses;
  for (int t = 0; t < count; ++t) {
    uses.push_back(reachable(graph_, [&](Id id) {
      const auto& node = graph_.at(id);
      return node.op == Op::Input && kind_of(node) == kTotal &&
          number_of(node) == t;
    }));
  }
  std::vector<char> needed(totals_.size());
  for (int t = count - 1; t >= 0; --t) {
    const auto used_by = [&](Id id) { return uses[t][id] != 0; };
    needed[t] = std::ranges::any_of(write, used_by) ||
        std::ranges::any_of(finish, used_by);
    for (int later = t + 1; later < count; ++later) {
      needed[t] |= needed[later] && used_by(totals_[later].value);
    }
  }
  for (int t = 0; t < count; ++t) {
    if (!needed[t]) {
      continue;
    }
    made.pass[t] = 0;
    for (int earlier = 0; earlier < t; ++earlier) {
      if (uses[earlier][totals_[t].value]) {
        made.pass[t] = std::max(made.pass[t], made.pass[earlier] + 1);
      }
    }
    made.num_passes = std::max(made.num_passes, made.pass[t] + 1);
  }
  for (int pass = 0; pass < made.num_passes; ++pass) {
    for (int t = 0; t < count; ++t) {
      if (made.pass[t] == pass) {
        made.place[t] = static_cast<int>(made.order.size());
        made.order.push_back(t);
      }
    }
  }
  return made;
}

// The program of values, its inputs numbered as RowProgram says: for a pass, or
// (pass = num_passes) for the end; of a row, without elements.
FlatExpression RowGraph::flatten(
    const Schedule& schedule,
    std::span<const Id> values,
    int pass,
    bool rows) const {
  if (values.empty()) {
    return {};
  }
  const int num_elements = rows ? 0 : num_elements_;
  int before = 0, here = 0; // totals of earlier passes, of this one
  bool serial = false;
  for (const int t : schedule.order) {
    before += schedule.pass[t] < pass;
    here += schedule.pass[t] == pass;
    serial |= schedule.pass[t] == pass && totals_[t].combine == Combine::Serial;
  }
  auto flat = graph_.flatten(values, 0);
  const int first_total = num_elements + num_row_values_;
  for (auto& step : flat.code) {
    if (step.op != Op::Input) {
      continue;
    }
    const int number = number_of(step);
    switch (kind_of(step)) {
      case kElement:
        step.bits = static_cast<uint32_t>(number);
        break;
      case kRowValue:
        step.bits = static_cast<uint32_t>(num_elements + number);
        break;
      default: // totals of this pass stand behind those of earlier ones
        step.bits = static_cast<uint32_t>(first_total + schedule.place[number]);
    }
  }
  flat.num_inputs = first_total + before + (serial ? here : 0);
  return flat;
}

RowProgram RowGraph::build() const {
  const Schedule schedule = this->schedule();
  RowProgram program;
  program.num_elements = num_elements_;
  program.num_row_values = num_row_values_;
  for (int pass = 0; pass < schedule.num_passes; ++pass) {
    RowPass made;
    std::vector<Id> values;
    for (const int t : schedule.order) {
      if (schedule.pass[t] == pass) {
        values.push_back(totals_[t].value);
        made.reductions.push_back({totals_[t].combine, totals_[t].init});
      }
    }
    made.values = flatten(schedule, values, pass, false);
    program.passes.push_back(std::move(made));
  }
  program.write = flatten(schedule, write, schedule.num_passes, false);
  program.finish = flatten(schedule, finish, schedule.num_passes, true);
  return program;
}

} // namespace zmlx::dialect
