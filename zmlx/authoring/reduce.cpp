// SPDX-License-Identifier: MIT
#include "zmlx/authoring/reduce.h"

#include <algorithm>

#include "zmlx/authoring/program.h"
#include "zmlx/authoring/rows.h"
#include "zmlx/base/error.h"
#include "zmlx/dialect/parse.h"
#include "zmlx/dialect/row_graph.h"

namespace zmlx {
namespace {

using dialect::Binding;
using dialect::Functions;
using dialect::Graph;
using dialect::RowGraph;

// The texts of one operation read into a row program. Row value 0 is D.
class Builder {
 public:
  Builder(
      std::string op,
      const std::string& header,
      const std::vector<std::string>& inputs,
      const std::vector<std::string>& row_inputs = {})
      : op_(std::move(op)),
        helpers_(header.empty() ? Functions() : Functions({op_, header})),
        rows_(
            static_cast<int>(inputs.size()),
            static_cast<int>(row_inputs.size()) + 1) {
    if (inputs.empty()) {
      invalid(op_, "there must be at least 1 input name, got 0.");
    }
    auto all = inputs;
    all.insert(all.end(), row_inputs.begin(), row_inputs.end());
    dialect::check_names(op_, all);
    row_names_.push_back({"D", rows_.row_value(0)});
    for (size_t i = 0; i < row_inputs.size(); ++i) {
      row_names_.push_back(
          {row_inputs[i], rows_.row_value(static_cast<int>(i) + 1)});
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      elements_.push_back({inputs[i], rows_.element(static_cast<int>(i))});
    }
  }

  // Adds a total that the texts after this one may call `total_name`.
  void add_pass(
      const MapReducePass& pass,
      const std::string& running_name,
      const std::string& total_name) {
    const float init = constant(pass.init);
    auto names = all_names();
    const auto running = rows_.running();
    names.push_back({running_name, running, true});
    const auto update = parse(pass.update, names);
    if (!pass.reduce.empty()) {
      check_reduce(pass, update, running);
    }
    const int total = rows_.add_update(init, update);
    row_names_.push_back({total_name, rows_.total(total)});
  }

  void add_name(const std::string& alias) {
    row_names_.push_back({alias, row_names_.back().value});
  }

  std::shared_ptr<const Rows> written(const std::string& text) {
    rows_.write = {parse(text, all_names())};
    return build();
  }

  std::shared_ptr<const Rows> finished(const std::string& text) {
    rows_.finish = {parse(text, row_names_)};
    return build();
  }

  std::shared_ptr<const Rows> results(
      const std::vector<std::string>& write,
      const std::vector<std::string>& finish) {
    if (write.empty() && finish.empty()) {
      invalid(op_, "there must be at least 1 result, got 0.");
    }
    for (const auto& text : write) {
      rows_.write.push_back(parse(text, all_names()));
    }
    for (const auto& text : finish) {
      rows_.finish.push_back(parse(text, row_names_));
    }
    return build();
  }

 private:
  // Elements last, so that an input named D or s1 keeps its meaning.
  std::vector<Binding> all_names() const {
    auto names = row_names_;
    names.insert(names.end(), elements_.begin(), elements_.end());
    return names;
  }

  Graph::Id parse(const std::string& text, const std::vector<Binding>& names) {
    return dialect::parse(rows_.graph(), {op_, text}, names, helpers_);
  }

  float constant(const std::string& text) {
    const auto id = parse(text, {});
    if (!rows_.graph().is_constant(id)) {
      invalid(op_, "init must be a constant, got '", text, "'.");
    }
    return rows_.graph().at(id).as_float();
  }

  // reduce(a, b) must combine totals in the way that update combines values.
  void
  check_reduce(const MapReducePass& pass, Graph::Id update, Graph::Id running) {
    Graph graph;
    const auto a = graph.input(0), b = graph.input(1);
    const Binding names[] = {{"a", a}, {"b", b}};
    const auto text =
        dialect::parse(graph, {op_, pass.reduce}, names, helpers_);
    const auto parts = dialect::recognize_update(graph, text, a);
    const auto whole =
        dialect::recognize_update(rows_.graph(), update, running);
    if (whole &&
        !(parts && parts->value == b && parts->combine == whole->combine)) {
      invalid(
          op_,
          "reduce must combine a and b as update '",
          pass.update,
          "' does, got '",
          pass.reduce,
          "'.");
    }
  }

  std::shared_ptr<const Rows> build() {
    return std::make_shared<const Rows>(op_, rows_.build());
  }

  std::string op_;
  Functions helpers_;
  RowGraph rows_;
  std::vector<Binding> row_names_, elements_;
};

// Whether anything reads D, row value 0.
bool reads_length(const dialect::RowProgram& program) {
  const auto reads = [](const dialect::FlatExpression& expression, int input) {
    return std::ranges::any_of(expression.code, [&](const auto& step) {
      return step.op == dialect::Op::Input &&
          static_cast<int>(step.bits) == input;
    });
  };
  return reads(program.write, program.num_elements) ||
      reads(program.finish, 0) ||
      std::ranges::any_of(program.passes, [&](const dialect::RowPass& pass) {
           return reads(pass.values, program.num_elements);
         });
}

} // namespace

mx::array RowOperation::operator()(
    const std::vector<mx::array>& inputs,
    mx::StreamOrDevice s) const {
  const auto stream = mx::to_stream(s);
  const auto result = results(inputs, {}, stream)[0];
  return reduces_ && !keepdims_ ? mx::squeeze(result, axis_, stream) : result;
}

std::vector<mx::array> RowOperation::results(
    const std::vector<mx::array>& inputs,
    std::vector<mx::Dtype> dtypes,
    mx::StreamOrDevice s) const {
  const auto& op = rows_->name();
  check_count(op, names_, inputs);
  const auto dtype = result_dtype(op, inputs);
  if (dtypes.empty()) {
    dtypes.assign(static_cast<size_t>(rows_->num_outputs()), dtype);
  }
  const auto num_elements = rows_->program().num_elements;
  const std::vector<mx::array> elements(
      inputs.begin(), inputs.begin() + num_elements);
  const auto shape = broadcast_shape(op, elements);
  const int ndim = static_cast<int>(shape.size());
  const int axis = axis_ < 0 ? axis_ + ndim : axis_;
  if (axis < 0 || axis >= ndim) {
    invalid(
        op, "axis must lie in the shape ", shape, " of x, got ", axis_, ".");
  }
  const auto stream = mx::to_stream(s);
  auto all = mx::broadcast_arrays(elements, stream);
  // D follows the shape when a compiled graph is run with another one. Where
  // nothing reads it, it need not be made: on a GPU that is a launch.
  all.push_back(
      reads_length(rows_->program())
          ? mx::number_of_elements(all[0], {axis}, false, mx::float32, stream)
          : mx::array(0.0f));
  all.insert(all.end(), inputs.begin() + num_elements, inputs.end());
  return run_rows(rows_, shape, axis, all, dtypes, stream);
}

RowOperation reduce(const ReduceSpec& spec) {
  Builder builder(spec.name, spec.header, spec.inputs);
  builder.add_pass({spec.init, spec.update}, "acc", "acc");
  builder.add_name("s");
  RowOperation made;
  made.rows_ = builder.finished(spec.finalize);
  made.names_ = spec.inputs;
  made.axis_ = spec.axis;
  made.reduces_ = true;
  made.keepdims_ = spec.keepdims;
  return made;
}

RowOperation map_reduce(const MapReduceSpec& spec) {
  Builder builder(spec.name, spec.header, spec.inputs);
  builder.add_pass(spec.pass1, "acc1", "s1");
  if (!spec.pass2.update.empty()) {
    builder.add_pass(spec.pass2, "acc2", "s2");
  }
  RowOperation made;
  made.rows_ = builder.written(spec.write);
  made.names_ = spec.inputs;
  made.axis_ = spec.axis;
  return made;
}

RowOperation row_operation(const RowSpec& spec) {
  Builder builder(spec.name, spec.header, spec.inputs, spec.row_inputs);
  for (const auto& total : spec.totals) {
    builder.add_pass({total.init, total.update}, "acc", total.name);
  }
  RowOperation made;
  made.rows_ = builder.results(spec.write, spec.finish);
  made.names_ = spec.inputs;
  made.names_.insert(
      made.names_.end(), spec.row_inputs.begin(), spec.row_inputs.end());
  made.axis_ = spec.axis;
  return made;
}

} // namespace zmlx
