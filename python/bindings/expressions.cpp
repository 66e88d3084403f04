// SPDX-License-Identifier: MIT
// Operations from text: elementwise, reduce and map_reduce.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

#include "python/bindings/bind.h"
#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/reduce.h"

using zmlx::Elementwise;
using zmlx::RowOperation;

namespace {

template <class Operation>
mx::array call(const Operation& operation, const nb::args& inputs) {
  const auto arrays = arrays_of(inputs, "zmlx");
  nb::gil_scoped_release released;
  return operation(arrays);
}

zmlx::ElementwiseOptions options_of(
    std::string name,
    std::vector<std::string> grad_expr,
    std::string grad_prelude,
    std::string header) {
  return {
      .name = std::move(name),
      .grad_expr = std::move(grad_expr),
      .grad_prelude = std::move(grad_prelude),
      .header = std::move(header)};
}

void bind_rows(nb::module_& m) {
  nb::class_<RowOperation>(m, "RowOperation")
      .def(
          "__call__",
          &call<RowOperation>,
          nb::sig(
              "def __call__(self, *inputs: mlx.core.array) -> "
              "mlx.core.array"))
      .def_prop_ro(
          "input_names", [](const RowOperation& f) { return f.input_names(); });
  m.def(
      "reduce",
      [](std::string init,
         std::string update,
         std::string finalize,
         std::string name,
         std::string header) {
        return zmlx::reduce(
            {.init = std::move(init),
             .update = std::move(update),
             .finalize = std::move(finalize),
             .name = std::move(name),
             .header = std::move(header)});
      },
      nb::arg("init"),
      nb::arg("update"),
      nb::arg("finalize"),
      nb::arg("name"),
      nb::arg("header"),
      without_gil());
  using Pass = std::vector<std::string>; // init, update, reduce
  m.def(
      "map_reduce",
      [](const Pass& pass1,
         const Pass& pass2,
         std::string write,
         std::string name,
         std::string header,
         std::vector<std::string> inputs) {
        return zmlx::map_reduce(
            {.pass1 = {pass1.at(0), pass1.at(1), pass1.at(2)},
             .pass2 = {pass2.at(0), pass2.at(1), pass2.at(2)},
             .write = std::move(write),
             .name = std::move(name),
             .header = std::move(header),
             .inputs = std::move(inputs)});
      },
      nb::arg("pass1"),
      nb::arg("pass2"),
      nb::arg("write"),
      nb::arg("name"),
      nb::arg("header"),
      nb::arg("inputs"),
      without_gil());
}

} // namespace

void bind_expressions(nb::module_& m) {
  bind_rows(m);
  m.def(
      "binary",
      [](const std::string& name, const std::string& expr, std::string header) {
        return zmlx::binary(
            name, expr, {.name = name, .header = std::move(header)});
      },
      nb::arg("name"),
      nb::arg("expr"),
      nb::kw_only(),
      nb::arg("header") = "",
      without_gil());
  m.def(
      "jit",
      [](const std::string& text, std::string name) {
        return zmlx::jit(text, {.name = std::move(name)});
      },
      nb::arg("text"),
      nb::arg("name"),
      without_gil());
  nb::class_<Elementwise>(m, "Elementwise")
      .def(
          "__call__",
          &call<Elementwise>,
          nb::sig(
              "def __call__(self, *inputs: mlx.core.array) -> "
              "mlx.core.array"))
      .def_prop_ro(
          "input_names", [](const Elementwise& f) { return f.input_names(); })
      .def("text", &Elementwise::text)
      .def("gradient_text", &Elementwise::gradient_text, nb::arg("input") = 0);
  m.def(
      "elementwise_map",
      [](const std::string& name,
         const std::string& expr,
         const std::vector<std::string>& input_names,
         std::vector<std::string> grad_expr,
         std::string grad_prelude,
         std::string header) {
        return zmlx::map(
            name,
            expr,
            input_names,
            options_of(
                name,
                std::move(grad_expr),
                std::move(grad_prelude),
                std::move(header)));
      },
      nb::arg("name"),
      nb::arg("expr"),
      nb::arg("input_names"),
      nb::kw_only(),
      nb::arg("grad_expr") = std::vector<std::string>{},
      nb::arg("grad_prelude") = "",
      nb::arg("header") = "",
      without_gil());
}
