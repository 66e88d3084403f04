// SPDX-License-Identifier: MIT
// zmlx compare: did the second measurement get worse than the first?
#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/output.h"
#include "zmlx/measure/compare.h"

namespace zmlx::cli {

void add_compare(CLI::App& app, int* exit_code) {
  struct Paths {
    std::string before, after;
  };
  auto paths = std::make_shared<Paths>();
  auto& command = *app.add_subcommand(
      "compare", "Compare two capsules, or two outputs of bench -o json");
  command.add_option("BEFORE", paths->before, "The older file")
      ->type_name("")
      ->required();
  command.add_option("AFTER", paths->after, "The newer file")
      ->type_name("")
      ->required();
  command.footer("Exit code 0: no regression, 1: a regression or a bad file.");
  command.callback([paths, exit_code] {
    const auto result = measure::compare_files(paths->before, paths->after);
    print(measure::to_text(result));
    *exit_code = result.good() ? kGood : kFailed;
  });
}

} // namespace zmlx::cli
