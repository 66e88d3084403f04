// SPDX-License-Identifier: MIT
// zmlx report: capsules as tables.
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"
#include "zmlx/measure/report.h"

namespace zmlx::cli {

void add_report(CLI::App& app, int* exit_code) {
  auto paths = std::make_shared<std::vector<std::string>>();
  auto& command =
      *app.add_subcommand("report", "Print capsules of validate as tables");
  command.add_option("CAPSULE", *paths, "Files of validate --json")
      ->type_name("")
      ->required();
  command.callback([paths, exit_code] {
    for (const auto& path : *paths) {
      print(measure::report_text(measure::read_capsule(path)));
    }
    *exit_code = kGood;
  });
}

} // namespace zmlx::cli
