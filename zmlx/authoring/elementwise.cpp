// SPDX-License-Identifier: MIT
#include "zmlx/authoring/elementwise.h"

#include "zmlx/authoring/program.h"
#include "zmlx/base/error.h"
#include "zmlx/dialect/parse.h"
#include "zmlx/dialect/print.h"

namespace zmlx {
namespace {

using dialect::Binding;
using dialect::FlatExpression;
using dialect::Functions;
using dialect::Graph;

Functions header_of(const std::string& op, const std::string& header) {
  return header.empty() ? Functions() : Functions({op, header});
}

// How a text names the inputs. The first has the name x too where x_is_first
// and no input is called so.
struct Names {
  std::vector<std::string> inputs;
  bool x_is_first = false;

  // Later ones hide earlier ones.
  std::vector<Binding> bind(
      std::vector<Binding> before,
      const std::vector<Graph::Id>& ids) const {
    if (x_is_first) {
      before.push_back({"x", ids[0]});
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      before.push_back({inputs[i], ids[i]});
    }
    return before;
  }
};

std::vector<Graph::Id> input_nodes(Graph& graph, size_t count) {
  std::vector<Graph::Id> ids;
  for (size_t i = 0; i < count; ++i) {
    ids.push_back(graph.input(static_cast<int>(i)));
  }
  return ids;
}

// The derivatives of options, each of the inputs, then the cotangent.
std::vector<FlatExpression> given_gradients(
    const std::string& op,
    const FlatExpression& value,
    const Names& names,
    const Functions& helpers,
    const ElementwiseOptions& options) {
  const size_t num_inputs = names.inputs.size();
  std::vector<FlatExpression> gradients;
  if (options.grad_expr.empty()) {
    if (!options.grad_prelude.empty()) {
      invalid(op, "grad_prelude must come with grad_expr, got none.");
    }
    return gradients;
  }
  if (options.grad_expr.size() != num_inputs) {
    invalid(
        op,
        "grad_expr must have one text for each of ",
        num_inputs,
        " inputs, got ",
        options.grad_expr.size(),
        ".");
  }
  for (const auto& text : options.grad_expr) {
    Graph graph;
    const auto inputs = input_nodes(graph, num_inputs);
    const auto bindings = names.bind(
        {{"g", graph.input(static_cast<int>(num_inputs))},
         {"y", graph.append(value, inputs)[0]}},
        inputs);
    const std::string source = options.grad_prelude.empty()
        ? text
        : options.grad_prelude + '\n' + text;
    const auto id = dialect::parse(graph, {op, source}, bindings, helpers);
    gradients.push_back(
        graph.flatten({&id, 1}, static_cast<int>(num_inputs) + 1));
  }
  return gradients;
}

} // namespace

mx::array Elementwise::operator()(
    const std::vector<mx::array>& inputs,
    mx::StreamOrDevice s) const {
  const auto& op = program_->name();
  check_count(op, names_, inputs);
  return run_program(program_, inputs, {result_dtype(op, inputs)}, s)[0];
}

std::string Elementwise::text() const {
  return dialect::print(program_->expression(), names_);
}

std::string Elementwise::gradient_text(int input) const {
  if (input < 0 || input >= static_cast<int>(names_.size())) {
    invalid(
        program_->name(),
        "input must be 0..",
        names_.size() - 1,
        ", got ",
        input,
        ".");
  }
  auto names = names_;
  names.push_back("g");
  return dialect::print(program_->vjp({input})->expression(), names);
}

Elementwise Elementwise::make(
    std::string_view name,
    std::string_view expr,
    const std::vector<std::string>& input_names,
    bool x_is_first,
    const ElementwiseOptions& options) {
  std::string op(options.name.empty() ? name : options.name);
  op = op.empty() ? "elementwise" : op;
  if (input_names.empty()) {
    invalid(op, "there must be at least 1 input name, got 0.");
  }
  dialect::check_names(op, input_names);
  const Names names{input_names, x_is_first};
  const auto helpers = header_of(op, options.header);
  Graph graph;
  const auto id = dialect::parse(
      graph,
      {op, std::string(expr)},
      names.bind({}, input_nodes(graph, input_names.size())),
      helpers);
  auto value = graph.flatten({&id, 1}, static_cast<int>(input_names.size()));
  auto gradients = given_gradients(op, value, names, helpers, options);
  return Elementwise(
      std::make_shared<const Program>(
          op, std::move(value), std::move(gradients)),
      input_names);
}

Elementwise elementwise(
    std::string_view expr,
    const ElementwiseOptions& options) {
  return Elementwise::make("elementwise", expr, {"x"}, false, options);
}

Elementwise unary(
    std::string_view name,
    std::string_view expr,
    const ElementwiseOptions& options) {
  return Elementwise::make(name, expr, {"x"}, false, options);
}

Elementwise binary(
    std::string_view name,
    std::string_view expr,
    const ElementwiseOptions& options) {
  return Elementwise::make(name, expr, {"a", "b"}, true, options);
}

Elementwise map(
    std::string_view name,
    std::string_view expr,
    const std::vector<std::string>& input_names,
    const ElementwiseOptions& options) {
  return Elementwise::make(name, expr, input_names, false, options);
}

Elementwise jit(std::string_view function, const ElementwiseOptions& options) {
  std::string op = options.name.empty() ? "jit" : options.name;
  const Functions functions(
      {op,
       options.header.empty() ? std::string(function)
                              : concat(options.header, '\n', function)});
  const auto& all = functions.text()->functions;
  if (all.empty()) {
    invalid(op, "the text must define a function, got none.");
  }
  if (all.back().parameters.empty()) {
    invalid(op, "a function must have at least 1 parameter, got 0.");
  }
  if (options.name.empty()) {
    op = all.back().name;
  }
  std::vector<std::string> names;
  for (const auto& parameter : all.back().parameters) {
    names.push_back(parameter.name);
  }
  Graph graph;
  const auto id =
      dialect::parse_call(graph, functions, input_nodes(graph, names.size()));
  auto value = graph.flatten({&id, 1}, static_cast<int>(names.size()));
  auto gradients = given_gradients(op, value, {names}, functions, options);
  return Elementwise(
      std::make_shared<const Program>(
          op, std::move(value), std::move(gradients)),
      names);
}

} // namespace zmlx
