// SPDX-License-Identifier: MIT
// Operations from text: elementwise, reduce and map_reduce.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

#include "python/bindings/bind.h"
#include "zmlx/authoring/elementwise.h"

using zmlx::Elementwise;

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

} // namespace

void bind_expressions(nb::module_& m) {
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
