// SPDX-License-Identifier: MIT
// Raw kernels in Metal: building, calling, gradients from Python, tuning.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "python/bindings/bind.h"
#include "zmlx/authoring/autotune_kernel.h"
#include "zmlx/authoring/kernel.h"
#include "zmlx/base/error.h"

using zmlx::Kernel;
using zmlx::KernelLaunch;

namespace {

using Shapes = std::vector<std::vector<int>>;

std::string op_of(const Kernel& kernel) {
  return "kernel " + kernel.source().name;
}

[[noreturn]] void
wrong_type(const std::string& op, const char* what, nb::handle got) {
  const auto text = zmlx::concat(
      '[', op, "] ", what, ", got ", nb::type_name(got.type()).c_str(), '.');
  throw nb::type_error(text.c_str());
}

zmlx::KernelSize
size_of(const std::string& op, const char* name, nb::handle value) {
  std::vector<int> sizes;
  if (!nb::try_cast(value, sizes) || sizes.empty() || sizes.size() > 3) {
    wrong_type(
        op, zmlx::concat(name, " must be 1 to 3 whole numbers").c_str(), value);
  }
  sizes.resize(3, 1);
  return {sizes[0], sizes[1], sizes[2]};
}

std::vector<zmlx::KernelTemplateArgument> templates_of(
    const std::string& op,
    nb::handle pairs) {
  std::vector<zmlx::KernelTemplateArgument> templates;
  for (nb::handle pair : pairs) {
    const auto name = nb::cast<std::string>(pair[0]);
    const nb::object value = pair[1];
    mx::Dtype dtype = mx::float32;
    if (nb::isinstance<nb::bool_>(value)) {
      templates.emplace_back(name, nb::cast<bool>(value));
    } else if (nb::isinstance<nb::int_>(value)) {
      templates.emplace_back(name, nb::cast<int>(value));
    } else if (nb::try_cast(value, dtype)) {
      templates.emplace_back(name, dtype);
    } else {
      wrong_type(
          op,
          "a template argument must be an mx.Dtype, an int or a bool",
          value);
    }
  }
  return templates;
}

// What is None keeps its default.
KernelLaunch launch_of(
    const std::string& op,
    nb::handle grid,
    nb::handle threadgroup,
    const std::optional<Shapes>& output_shapes,
    const std::optional<std::vector<mx::Dtype>>& output_dtypes,
    nb::handle templates,
    std::optional<float> init_value) {
  KernelLaunch launch;
  if (!grid.is_none()) {
    launch.grid = size_of(op, "grid", grid);
  }
  if (!threadgroup.is_none()) {
    launch.threadgroup = size_of(op, "threadgroup", threadgroup);
  }
  if (output_shapes) {
    std::vector<mx::Shape> shapes;
    for (const auto& shape : *output_shapes) {
      shapes.emplace_back(shape.begin(), shape.end());
    }
    launch.output_shapes = shapes;
  }
  if (output_dtypes) {
    launch.output_dtypes = *output_dtypes;
  }
  if (!templates.is_none()) {
    launch.templates = templates_of(op, templates);
  }
  launch.init_value = init_value;
  return launch;
}

std::vector<mx::array> call(
    const Kernel& kernel,
    const nb::object& inputs,
    nb::handle grid,
    nb::handle threadgroup,
    const std::optional<Shapes>& output_shapes,
    const std::optional<std::vector<mx::Dtype>>& output_dtypes,
    nb::handle templates,
    std::optional<float> init_value) {
  const auto op = op_of(kernel);
  const auto arrays = arrays_of(inputs, op, kernel.source().inputs);
  const auto launch = launch_of(
      op,
      grid,
      threadgroup,
      output_shapes,
      output_dtypes,
      templates,
      init_value);
  nb::gil_scoped_release released;
  return kernel(arrays, launch);
}

// The callable lives as long as the kernel, and dies with the lock held.
Kernel custom_vjp(const Kernel& kernel, nb::callable function) {
  std::shared_ptr<nb::callable> kept(
      new nb::callable(std::move(function)), [](nb::callable* held) {
        nb::gil_scoped_acquire lock;
        delete held;
      });
  return kernel.custom_vjp(
      [kept, op = op_of(kernel)](
          const auto& inputs, const auto& cotangents, const auto& outputs) {
        nb::gil_scoped_acquire lock;
        return arrays_of((*kept)(inputs, cotangents, outputs), op);
      });
}

struct Tuned {
  int best = 0;
  std::vector<double> seconds;
  std::vector<std::string> failures;
  bool cached = false;
};

// candidates: (threadgroup, template, grid) each.
Tuned tune(
    const Kernel& kernel,
    const nb::object& inputs,
    const nb::list& candidates,
    const std::optional<Shapes>& output_shapes,
    const std::optional<std::vector<mx::Dtype>>& output_dtypes,
    int warmup,
    int iterations,
    bool use_cache) {
  const auto op = op_of(kernel);
  const auto arrays = arrays_of(inputs, op, kernel.source().inputs);
  std::vector<KernelLaunch> launches;
  for (nb::handle each : candidates) {
    launches.push_back(launch_of(
        op,
        nb::object(each[2]),
        nb::object(each[0]),
        output_shapes,
        output_dtypes,
        nb::object(each[1]),
        std::nullopt));
  }
  nb::gil_scoped_release released;
  const auto tuned = zmlx::autotune_kernel(
      kernel,
      arrays,
      launches,
      {.warmup = warmup, .iterations = iterations, .use_cache = use_cache});
  Tuned result;
  result.cached = tuned.result.cached;
  for (const auto& timing : tuned.result.timings) {
    if (timing.config == tuned.result.best) {
      result.best = static_cast<int>(result.seconds.size());
    }
    result.seconds.push_back(timing.seconds);
    result.failures.push_back(timing.failure);
  }
  return result;
}

} // namespace

void bind_raw_kernel(nb::module_& m) {
  nb::exception<zmlx::KernelCheckError>(
      m, "KernelCheckError", PyExc_RuntimeError);
  m.def("set_checked_kernels", &zmlx::set_checked_kernels, nb::arg("on"));
  nb::class_<Kernel>(m, "Kernel")
      .def(
          "__init__",
          [](Kernel* self,
             std::string name,
             std::vector<std::string> inputs,
             std::vector<std::string> outputs,
             std::string body,
             std::string header,
             bool ensure_row_contiguous,
             bool atomic_outputs) {
            new (self) Kernel(
                {.name = std::move(name),
                 .inputs = std::move(inputs),
                 .outputs = std::move(outputs),
                 .body = std::move(body),
                 .header = std::move(header),
                 .ensure_row_contiguous = ensure_row_contiguous,
                 .atomic_outputs = atomic_outputs});
          },
          nb::arg("name"),
          nb::arg("inputs"),
          nb::arg("outputs"),
          nb::arg("body"),
          nb::arg("header") = "",
          nb::arg("ensure_row_contiguous") = true,
          nb::arg("atomic_outputs") = false)
      .def(
          "__call__",
          &call,
          nb::arg("inputs"),
          nb::kw_only(),
          nb::arg("grid") = nb::none(),
          nb::arg("threadgroup") = nb::none(),
          nb::arg("output_shapes") = nb::none(),
          nb::arg("output_dtypes") = nb::none(),
          nb::arg("template") = nb::none(),
          nb::arg("init_value") = nb::none())
      .def("custom_vjp", &custom_vjp, nb::arg("vjp"))
      .def(
          "checked",
          [](const Kernel& kernel, bool on) { return kernel.checked(on); },
          nb::arg("on") = true);
  m.def(
      "autotune_kernel",
      [](const Kernel& kernel,
         const nb::object& inputs,
         const nb::list& candidates,
         const std::optional<Shapes>& output_shapes,
         const std::optional<std::vector<mx::Dtype>>& output_dtypes,
         int warmup,
         int iterations,
         bool use_cache) {
        const auto tuned = tune(
            kernel,
            inputs,
            candidates,
            output_shapes,
            output_dtypes,
            warmup,
            iterations,
            use_cache);
        return std::make_tuple(
            tuned.best, tuned.seconds, tuned.failures, tuned.cached);
      },
      nb::arg("kernel"),
      nb::arg("inputs"),
      nb::arg("candidates"),
      nb::kw_only(),
      nb::arg("output_shapes") = nb::none(),
      nb::arg("output_dtypes") = nb::none(),
      nb::arg("warmup") = 3,
      nb::arg("iterations") = 10,
      nb::arg("use_cache") = false);
}
