// SPDX-License-Identifier: MIT
// The program zmlx: reads the command line, runs one command, and turns every
// exception into one line on standard error and an exit code.
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/usage.h"
#include "mlx/version.h"
#include "zmlx/base/error.h"
#include "zmlx/version.h"

namespace zmlx::cli {
namespace {

void add_commands(CLI::App& app, int* exit_code) {
  add_generate(app, exit_code);
  add_validate(app, exit_code);
  add_bench(app, exit_code);
  add_report(app, exit_code);
  add_compare(app, exit_code);
  add_logits(app, exit_code);
  add_tokenize(app, exit_code);
  add_synth(app, exit_code);
  add_kernels(app, exit_code);
  add_doctor(app, exit_code);
}

std::string version_text() {
  return concat("zmlx ", ZMLX_VERSION, " (MLX ", mlx::core::version(), ')');
}

// The library's errors begin with "[operation] "; the command says it already.
std::string_view without_repeat(
    std::string_view message,
    const std::string& command) {
  const std::string tag = "[" + command + "] ";
  return message.substr(0, tag.size()) == tag ? message.substr(tag.size())
                                              : message;
}

int fail(const CLI::App& app, std::string_view message, int exit_code) {
  const CLI::App* command = command_of(app);
  const std::string name = command ? command->get_name() : "";
  const std::string line = concat(
      "zmlx",
      name.empty() ? "" : " ",
      name,
      ": ",
      without_repeat(message, name),
      '\n');
  std::fputs(line.c_str(), stderr);
  return exit_code;
}

// "zmlx help" and "zmlx help CMD" as people type them.
std::vector<std::string> arguments(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (!words.empty() && words[0] == "help") {
    words.erase(words.begin());
    words.push_back("--help");
  }
  return {words.rbegin(), words.rend()}; // CLI11 takes them from the back
}

void parse(CLI::App& app, std::vector<std::string> words) {
  try {
    app.parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    print(app.help());
  } catch (const CLI::CallForVersion& version) {
    print(concat(version.what(), '\n'));
  }
  flush_stdout();
}

int run(std::vector<std::string> words) {
  int exit_code = kGood;
  CLI::App app("Runs MLX models with fused kernels, and checks them.", "zmlx");
  app.set_version_flag("--version", version_text(), "Print the version");
  app.set_help_flag("-h,--help", "Print this help");
  app.require_subcommand(1);
  app.get_formatter()->column_width(26);
  add_commands(app, &exit_code);
  if (words.empty()) {
    std::fputs(app.help().c_str(), stderr);
    return kWrongUse;
  }
  try {
    parse(app, std::move(words));
    return exit_code;
  } catch (const ClosedPipe&) {
    return exit_code;
  } catch (const Interrupted&) {
    return kInterrupted;
  } catch (const CLI::ParseError& error) {
    return fail(app, usage_message(app, error), kWrongUse);
  } catch (const std::invalid_argument& error) {
    return fail(app, error.what(), kWrongUse);
  } catch (const std::bad_alloc&) {
    return fail(app, "out of memory.", kFailed);
  } catch (const std::exception& error) {
    return fail(app, error.what(), kFailed);
  }
}

} // namespace
} // namespace zmlx::cli

int main(int argc, char** argv) {
  // A reader that has gone shows as an error of write(), which ends quietly.
  std::signal(SIGPIPE, SIG_IGN);
  return zmlx::cli::run(zmlx::cli::arguments(argc, argv));
}
