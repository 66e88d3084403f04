// SPDX-License-Identifier: MIT
#include "zmlx/authoring/registry.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"

namespace zmlx {
namespace {

void check_complete(const KernelSpec& spec) {
  const std::pair<const char*, bool> parts[] = {
      {"name", !spec.name.empty()},
      {"family", !spec.family.empty()},
      {"summary", !spec.summary.empty()},
      {"call", !spec.call.empty()},
      {"inputs", !spec.inputs.empty()},
      {"outputs", !spec.outputs.empty()},
      {"run", spec.run != nullptr},
      {"reference", spec.reference != nullptr},
      {"cases", !spec.cases.empty()},
      {"bench", !spec.bench.empty()},
  };
  for (const auto& [part, there] : parts) {
    if (!there) {
      invalid("registry", "kernel '", spec.name, "' must have ", part, '.');
    }
  }
  for (const auto* cases : {&spec.cases, &spec.bench}) {
    for (const auto& one : *cases) {
      if (!spec.make_inputs && one.shapes.size() != spec.inputs.size()) {
        invalid(
            "registry",
            "a case of '",
            spec.name,
            "' must have ",
            spec.inputs.size(),
            " shapes, got ",
            to_text(one),
            '.');
      }
    }
  }
  for (int place : spec.gradient) {
    if (place < 0 || place >= static_cast<int>(spec.inputs.size())) {
      invalid(
          "registry",
          "gradients of '",
          spec.name,
          "' must be in one of ",
          spec.inputs.size(),
          " inputs, got input ",
          place,
          '.');
    }
  }
}

std::string gradient_text(const KernelSpec& spec) {
  std::vector<std::string> names;
  for (int place : spec.gradient) {
    names.push_back(spec.inputs[static_cast<size_t>(place)].name);
  }
  return names.empty() ? "none" : join(names, ", ");
}

const char* devices_text(const KernelSpec& spec) {
  return spec.gpu ? "CPU, CUDA, Metal" : "CPU";
}

std::string padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

// Names of arrays and parameters with what holds of them, one a line.
template <class Parts>
std::string part_lines(
    const char* heading,
    const Parts& parts,
    std::string std::ranges::range_value_t<Parts>::* contract) {
  size_t width = 0;
  for (const auto& part : parts) {
    width = std::max(width, part.name.size());
  }
  std::string text;
  for (const auto& part : parts) {
    text += padded(text.empty() ? heading : "", 10) +
        padded(part.name, width + 2) + part.*contract + '\n';
  }
  return text;
}

} // namespace

void Registry::add(KernelSpec spec) {
  check_complete(spec);
  for (const auto& other : kernels_) {
    if (other.name == spec.name) {
      invalid(
          "registry",
          "kernel names must be unique, got '",
          spec.name,
          "' from ",
          other.family,
          " and ",
          spec.family,
          '.');
    }
  }
  kernels_.push_back(std::move(spec));
}

const KernelSpec& Registry::find(std::string_view name, std::string_view op)
    const {
  std::vector<std::string> names;
  for (const auto& spec : kernels_) {
    if (spec.name == name) {
      return spec;
    }
    names.push_back(spec.name);
  }
  invalid(
      op,
      "no kernel '",
      name,
      "'.",
      did_you_mean(name, names),
      " Run 'zmlx kernels' for the list.");
}

std::string kernels_table(const Registry& registry) {
  size_t name = 6, family = 6, gradient = 8;
  for (const auto& spec : registry.kernels()) {
    name = std::max(name, spec.name.size());
    family = std::max(family, spec.family.size());
    gradient = std::max(gradient, gradient_text(spec).size());
  }
  const auto line = [&](const std::string& a,
                        const std::string& b,
                        const std::string& c,
                        const std::string& d,
                        const std::string& e) {
    return padded(a, name + 2) + padded(b, family + 2) + padded(c, 18) +
        padded(d, gradient + 2) + e + '\n';
  };
  std::string text = line("kernel", "family", "runs on", "gradient", "what");
  for (const auto& spec : registry.kernels()) {
    text += line(
        spec.name,
        spec.family,
        devices_text(spec),
        gradient_text(spec),
        spec.summary);
  }
  return text;
}

std::string kernel_text(const KernelSpec& spec) {
  std::string text = spec.name + ": " + spec.summary + '\n';
  text += padded("call", 10) + spec.call + '\n';
  text += padded("header", 10) + "zmlx/kernels/" + spec.family + '/' +
      spec.family + ".h\n";
  text += part_lines("inputs", spec.inputs, &KernelArray::contract);
  text += part_lines("params", spec.params, &KernelParam::meaning);
  text += part_lines("outputs", spec.outputs, &KernelArray::contract);
  text += padded("gradient", 10) + gradient_text(spec) + '\n';
  text += padded("runs on", 10) + devices_text(spec) + '\n';
  for (const auto* cases : {&spec.cases, &spec.bench}) {
    const char* heading = cases == &spec.cases ? "checked" : "timed";
    for (const auto& one : *cases) {
      text += padded(&one == cases->data() ? heading : "", 10) + to_text(one) +
          '\n';
    }
  }
  return text;
}

std::string kernels_markdown(const Registry& registry) {
  std::string text =
      "# Kernels\n\n"
      "Printed by `zmlx kernels --markdown`; a test fails when it is stale.\n"
      "`zmlx kernels NAME` shows one contract, `zmlx kernels --check` checks\n"
      "every kernel on this machine, and `zmlx bench NAME` times one against\n"
      "composed MLX operations.\n";
  std::string family;
  for (const auto& spec : registry.kernels()) {
    if (spec.family != family) {
      family = spec.family;
      text += "\n## " + family + "\n\nHeader: [`zmlx/kernels/" + family + '/' +
          family + ".h`](../zmlx/kernels/" + family + '/' + family +
          ".h)\n\n| kernel | what | runs on | gradient in |\n"
          "| --- | --- | --- | --- |\n";
    }
    text += "| `" + spec.call + "` | " + spec.summary + " | " +
        devices_text(spec) + " | " + gradient_text(spec) + " |\n";
  }
  return text;
}

} // namespace zmlx
