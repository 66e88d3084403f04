// SPDX-License-Identifier: MIT
// zmlx doctor: what this machine has, and what is missing.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <unistd.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "mlx/mlx.h"
#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/base/text.h"
#include "zmlx/kernels/quant/matvec.h"
#include "zmlx/measure/memory.h"
#include "zmlx/model/checkpoint/hub.h"
#include "zmlx/model/checkpoint/memory.h"
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

std::string device_name(const mx::Device& device) {
  const auto& info = mx::device_info(device);
  const auto name = info.find("device_name");
  const auto* text =
      name == info.end() ? nullptr : std::get_if<std::string>(&name->second);
  return text ? *text : "unnamed";
}

// Names every device and adds two numbers on the default one.
Finding device_finding() {
  const mx::Device gpu(mx::Device::gpu);
  Finding finding{"device", "cpu", "", ""};
  if (mx::is_available(gpu)) {
    finding.value = device_name(gpu) + ", cpu";
  } else {
    finding.note = "no Metal or CUDA device in this build of MLX";
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

// The system's files have no size to read by; lines of what cannot be read are
// none.
std::vector<std::string> lines_of(const char* path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(line);
  }
  return lines;
}

std::string cpu_model() {
  for (const auto& line : lines_of("/proc/cpuinfo")) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != line.npos) {
      return line.substr(colon + 2);
    }
  }
  return device_name(mx::Device(mx::Device::cpu));
}

Finding threads_finding() {
  Finding finding{"threads", "", "", ""};
  try {
    finding.value = concat(
        num_threads(),
        " of ",
        std::thread::hardware_concurrency(),
        " processors");
  } catch (const std::exception& error) {
    finding.problem = error.what();
  }
  return finding;
}

Finding memory_finding() {
  return {
      "memory",
      concat(
          human_bytes(available_memory()),
          " available of ",
          human_bytes(measure::total_memory())),
      "",
      ""};
}

// The kernel marks the choice in force: "always [madvise] never".
Finding huge_pages_finding() {
  Finding finding{"huge pages", "unknown", "", ""};
  for (const auto& line :
       lines_of("/sys/kernel/mm/transparent_hugepage/enabled")) {
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

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  for (const auto& folder : split(path ? path : "", ':')) {
    const std::string full = folder + '/' + name;
    if (::access(full.c_str(), X_OK) == 0) {
      return full;
    }
  }
  return "";
}

Finding compiler_finding() {
  for (const char* name : {"c++", "g++", "clang++"}) {
    const std::string path = find_program(name);
    if (!path.empty()) {
      return {"compiler", path, "", ""};
    }
  }
  return {
      "compiler",
      "none",
      "needed for your own kernels and mx.compile on CPU. Try: apt-get install "
      "g++",
      ""};
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
  return {
      {"zmlx", ZMLX_VERSION, "", ""},
      mlx_finding(),
      device_finding(),
      {"cpu", cpu_model(), "", ""},
      threads_finding(),
      {"simd", cpu::target_name(), "", ""},
      memory_finding(),
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
    out += "  " + padded(variable.name, 16) +
        padded(env(variable.name).value_or("(not set)"), 24) +
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
