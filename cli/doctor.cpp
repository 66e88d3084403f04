// SPDX-License-Identifier: MIT
// zmlx doctor: what this machine has, and what is missing.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"
#include "mlx/mlx.h"
#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/base/text.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/measure/machine.h"
#include "zmlx/model/checkpoint/hub.h"
#include "zmlx/model/checkpoint/memory.h"
#include "zmlx/runtime/cpu_compiler.h"
#include "zmlx/runtime/thread_team.h"
#include "zmlx/version.h"

namespace zmlx::cli {
namespace {

namespace mx = mlx::core;
namespace fs = std::filesystem;

/// One line of the report; a problem says why zmlx cannot work, a note what
/// cannot be done without it.
struct Finding {
  std::string name, value, note, problem;
};

Finding mlx_finding() {
  const std::string built =
      concat(MLX_VERSION_MAJOR, '.', MLX_VERSION_MINOR, '.', MLX_VERSION_PATCH);
  Finding finding{"mlx", mx::version(), "", ""};
  if (finding.value.substr(0, built.size()) != built) {
    finding.problem =
        concat("zmlx was built with MLX ", built, ". Try: build it again.");
  }
  return finding;
}

// Adds two numbers on the default device.
Finding device_finding(const measure::Machine& machine) {
  Finding finding{"device", machine.backend, "", ""};
  if (machine.gpu.empty()) {
    finding.note = "no Metal or CUDA device for this build of MLX";
  } else {
    finding.value += ": " + machine.gpu;
  }
  try {
    const mx::array sum = mx::array(1.0f) + mx::array(2.0f);
    if (mx::array(sum).item<float>() != 3.0f) {
      finding.problem = "MLX says that 1 + 2 is not 3.";
    }
  } catch (const std::exception& error) {
    finding.problem = error.what();
  }
  return finding;
}

Finding threads_finding(const measure::Machine& machine) {
  Finding finding{"threads", "", "", ""};
  try {
    finding.value = concat(num_threads(), " of ", machine.cores, " processors");
  } catch (const std::exception& error) {
    finding.problem = error.what();
  }
  return finding;
}

Finding memory_finding(const measure::Machine& machine) {
  return {
      "memory",
      concat(
          human_bytes(available_memory()),
          " available of ",
          human_bytes(machine.memory_bytes)),
      "",
      ""};
}

// The kernel marks the choice in force: "always [madvise] never".
Finding huge_pages_finding() {
  Finding finding{"huge pages", "unknown", "", ""};
  // Files of the system have no size to read by.
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  if (std::getline(in, line)) {
    const size_t begin = line.find('['), end = line.find(']');
    if (begin != line.npos && end != line.npos) {
      finding.value = line.substr(begin + 1, end - begin - 1);
    }
  }
  if (finding.value == "never") {
    finding.note = "large models decode a little slower";
  }
  return finding;
}

Finding compiler_finding() {
  Finding finding{"compiler", cpu_compiler_description(), "", ""};
  if (finding.value.starts_with("none")) {
    finding.note =
        "needed for raw kernels and mx.compile on the CPU. Try: apt-get "
        "install g++";
  }
  return finding;
}

Finding models_finding() {
  const auto models = cached_models();
  const std::string folder = hub_cache_folder();
  std::error_code error;
  const bool there = fs::is_directory(folder, error);
  return {
      "models",
      there ? concat(models.size(), " in ", folder)
            : concat("none: no folder ", folder),
      "",
      ""};
}

std::vector<Finding> examine() {
  const auto machine = measure::this_machine();
  return {
      {"zmlx", ZMLX_VERSION, "", ""},
      mlx_finding(),
      {"system", machine.os, "", ""},
      {"cpu", machine.cpu, "", ""},
      threads_finding(machine),
      {"simd", cpu::target_name(), "", ""},
      device_finding(machine),
      memory_finding(machine),
      huge_pages_finding(),
      compiler_finding(),
      models_finding(),
      {"kernel cache", env_cache_dir(), "", ""},
  };
}

std::string as_text(const std::vector<Finding>& findings, bool works) {
  const auto padded = [](std::string text, size_t width) {
    text.resize(std::max(text.size() + 1, width), ' ');
    return text;
  };
  std::string out;
  for (const auto& finding : findings) {
    out += padded(finding.name, 14) + finding.value;
    if (!finding.note.empty()) {
      out += " (" + finding.note + ')';
    }
    out += '\n';
    if (!finding.problem.empty()) {
      out += padded("", 14) + "PROBLEM: " + finding.problem + '\n';
    }
  }
  out += "\nEnvironment variables that zmlx reads\n";
  for (const auto& variable : env_variables()) {
    out += "  " + padded(variable.name, 20) +
        padded(env(variable.name).value_or("(not set)"), 22) +
        variable.summary + '\n';
  }
  return out + (works ? "\nzmlx can work here.\n" : "\nzmlx cannot work.\n");
}

std::string as_json(const std::vector<Finding>& findings, bool works) {
  Json object = Json::object();
  object["ok"] = works;
  Json problems = Json::array();
  for (const auto& finding : findings) {
    object[finding.name] = finding.value;
    if (!finding.problem.empty()) {
      problems.push_back(finding.name + ": " + finding.problem);
    }
  }
  object["problems"] = problems;
  Json variables = Json::object();
  for (const auto& variable : env_variables()) {
    const auto value = env(variable.name);
    variables[variable.name] = value ? Json(*value) : Json();
  }
  object["environment"] = variables;
  return object.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

int run(bool json) {
  const auto findings = examine();
  bool works = true;
  for (const auto& finding : findings) {
    works &= finding.problem.empty();
  }
  print(json ? as_json(findings, works) : as_text(findings, works));
  return works ? kGood : kFailed;
}

} // namespace

void add_doctor(CLI::App& app, int* exit_code) {
  auto json = std::make_shared<bool>(false);
  auto& command =
      *app.add_subcommand("doctor", "What this machine has, and what it lacks");
  command.add_flag("--json", *json, "One JSON object");
  command.callback([json, exit_code] { *exit_code = run(*json); });
}

} // namespace zmlx::cli
