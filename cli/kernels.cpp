// SPDX-License-Identifier: MIT
// zmlx kernels: the catalog, one contract, and the checks of every kernel.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "zmlx/authoring/verify.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/kernels/catalog.h"
#include "zmlx/measure/machine.h"
#include "zmlx/runtime/device_name.h"
#include "zmlx/version.h"

namespace zmlx::cli {
namespace {

struct Flags {
  std::vector<std::string> names;
  bool markdown = false, check = false, json = false;
  std::string device;
};

struct CheckedCase {
  const KernelSpec* spec;
  const KernelCase* one;
  mx::Device device;
  std::vector<Check> checks;
};

std::vector<const KernelSpec*> chosen(const Flags& flags) {
  std::vector<const KernelSpec*> specs;
  for (const auto& name : flags.names) {
    specs.push_back(&catalog().find(name, "kernels"));
  }
  for (const auto& spec : catalog().kernels()) {
    if (flags.names.empty()) {
      specs.push_back(&spec);
    }
  }
  return specs;
}

std::vector<CheckedCase> cases_to_check(const Flags& flags) {
  if (!flags.device.empty() && flags.device != "cpu" && flags.device != "gpu") {
    invalid(
        "kernels", "--device must be cpu or gpu, got '", flags.device, "'.");
  }
  std::vector<CheckedCase> cases;
  for (const auto* spec : chosen(flags)) {
    for (const auto& device : devices_of(*spec)) {
      const char* kind = device == mx::Device::cpu ? "cpu" : "gpu";
      if (!flags.device.empty() && flags.device != kind) {
        continue;
      }
      for (const auto& one : spec->cases) {
        cases.push_back({spec, &one, device, {}});
      }
    }
  }
  return cases;
}

Json json_of(const std::vector<CheckedCase>& cases, int passed, int failed) {
  const auto machine = measure::this_machine();
  Json rows = Json::array();
  for (const auto& each : cases) {
    for (const auto& check : each.checks) {
      rows.push_back(
          {{"kernel", each.spec->name},
           {"case", to_text(*each.one)},
           {"backend", backend_name(each.device)},
           {"check", check.name},
           {"passed", check.passed},
           {"detail", check.detail}});
    }
  }
  return {
      {"schema_version", 1},
      {"zmlx_version", ZMLX_VERSION},
      {"mlx_version", machine.mlx_version},
      {"cpu", machine.cpu},
      {"gpu", machine.gpu},
      {"passed", passed},
      {"failed", failed},
      {"checks", rows}};
}

std::string text_of(const std::vector<CheckedCase>& cases) {
  std::string text;
  for (const auto& each : cases) {
    for (const auto& check : each.checks) {
      if (!check.passed) {
        text += concat(
            "FAILED ",
            each.spec->name,
            " on ",
            backend_name(each.device),
            ", ",
            to_text(*each.one),
            ", ",
            check.name,
            ": ",
            check.detail,
            '\n');
      }
    }
  }
  return text;
}

int check(const Flags& flags) {
  auto cases = cases_to_check(flags);
  if (cases.empty()) {
    throw BackendError(concat(
        "nothing to check: MLX has no ",
        flags.device,
        " here, or the kernels do not run on it."));
  }
  const Interrupt interrupt;
  Progress progress("Checking");
  int passed = 0, failed = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    interrupt.check();
    progress.update(concat(cases[i].spec->name, ": ", i, '/', cases.size()));
    cases[i].checks = verify(*cases[i].spec, *cases[i].one, cases[i].device);
    for (const auto& each : cases[i].checks) {
      ++(each.passed ? passed : failed);
    }
  }
  progress.clear();
  if (flags.json) {
    print(json_of(cases, passed, failed).dump(2) + '\n');
  } else {
    print(text_of(cases));
    print(concat(
        passed,
        " checks passed, ",
        failed,
        " failed, on ",
        cases.size(),
        " cases.\n"));
  }
  return failed == 0 ? kGood : kFailed;
}

int run(const Flags& flags) {
  if (flags.check) {
    return check(flags);
  }
  if (flags.json || !flags.device.empty()) {
    invalid("kernels", "--json and --device go with --check.");
  }
  if (flags.markdown) {
    print(kernels_markdown(catalog()));
  } else if (flags.names.empty()) {
    print(kernels_table(catalog()));
  } else {
    std::string text;
    for (const auto* spec : chosen(flags)) {
      text += (text.empty() ? "" : "\n") + kernel_text(*spec);
    }
    print(text);
  }
  return kGood;
}

} // namespace

void add_kernels(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  auto& command = *app.add_subcommand(
      "kernels", "List the kernels, show one's contract, or check them");
  command.add_option("NAME", flags->names, "Kernels; none: all")->type_name("");
  command.add_flag(
      "--check", flags->check, "Check them here against float64 references");
  command.add_option("--device", flags->device, "Check on cpu or gpu only")
      ->type_name("D");
  command.add_flag("--json", flags->json, "Checks as one JSON object");
  command.add_flag("--markdown", flags->markdown, "")->group("");
  command.callback([flags, exit_code] { *exit_code = run(*flags); });
}

} // namespace zmlx::cli
