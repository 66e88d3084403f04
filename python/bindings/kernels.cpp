// SPDX-License-Identifier: MIT
// The kernels of the catalog, by name, with what Python makes functions from.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "python/bindings/bind.h"
#include "zmlx/authoring/kernel_spec.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/catalog.h"
#include "zmlx/runtime/kept_compiled.h"

using zmlx::KernelSpec;

namespace {

using NamedText = std::pair<std::string, std::string>;

std::vector<NamedText> texts_of(const std::vector<zmlx::KernelArray>& arrays) {
  std::vector<NamedText> texts;
  for (const auto& array : arrays) {
    texts.emplace_back(array.name, array.contract);
  }
  return texts;
}

// Values that are None are left to the kernel.
zmlx::Params params_of(const KernelSpec& spec, const nb::dict& values) {
  zmlx::Params params;
  for (const auto& [key, value] : values) {
    double number = 0;
    const auto name = nb::cast<std::string>(key);
    if (value.is_none()) {
      continue;
    }
    if (!nb::try_cast(value, number)) {
      const auto text = zmlx::concat(
          '[',
          spec.name,
          "] ",
          name,
          " must be a number, got ",
          nb::type_name(value.type()).c_str(),
          '.');
      throw nb::type_error(text.c_str());
    }
    params[name] = number;
  }
  return params;
}

std::vector<mx::array>
run(const KernelSpec& spec, const nb::tuple& inputs, const nb::dict& values) {
  std::vector<std::string> names;
  for (const auto& input : spec.inputs) {
    names.push_back(input.name);
  }
  const auto arrays = arrays_of(inputs, spec.name, names);
  const auto params = params_of(spec, values);
  nb::gil_scoped_release released;
  return spec.run(arrays, params);
}

std::vector<const KernelSpec*> all() {
  std::vector<const KernelSpec*> kernels;
  for (const auto& spec : zmlx::catalog().kernels()) {
    kernels.push_back(&spec);
  }
  return kernels;
}

} // namespace

void bind_kernels(nb::module_& m) {
  nb::class_<KernelSpec>(m, "CatalogKernel")
      .def_ro("name", &KernelSpec::name)
      .def_ro("family", &KernelSpec::family)
      .def_ro("summary", &KernelSpec::summary)
      .def_ro("python", &KernelSpec::python)
      .def_ro("gradient", &KernelSpec::gradient)
      .def_ro("gpu", &KernelSpec::gpu)
      .def_prop_ro(
          "inputs",
          [](const KernelSpec& spec) { return texts_of(spec.inputs); })
      .def_prop_ro(
          "optional",
          [](const KernelSpec& spec) {
            std::vector<std::string> names;
            for (const auto& input : spec.inputs) {
              if (input.optional) {
                names.push_back(input.name);
              }
            }
            return names;
          })
      .def_prop_ro(
          "outputs",
          [](const KernelSpec& spec) { return texts_of(spec.outputs); })
      .def_prop_ro(
          "params",
          [](const KernelSpec& spec) {
            std::vector<
                std::tuple<std::string, std::string, std::optional<double>>>
                params;
            for (const auto& each : spec.params) {
              params.emplace_back(each.name, each.meaning, each.standard);
            }
            return params;
          })
      .def("__call__", &run, nb::arg("inputs"), nb::arg("params"));
  m.def("catalog", &all, nb::rv_policy::reference);
  m.def(
      "compile_together",
      [](const nb::callable& build) {
        const nb::gil_scoped_release released;
        zmlx::compile_together([&build] {
          const nb::gil_scoped_acquire held;
          build();
        });
      },
      nb::arg("build"));
}
