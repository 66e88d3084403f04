// SPDX-License-Identifier: MIT
#include "cli/usage.h"

#include <string_view>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"

namespace zmlx::cli {
namespace {

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  return names;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* command : app.get_subcommands({})) {
    names.push_back(command->get_name());
  }
  return names;
}

std::string unknown_command(const CLI::App& app, const std::string& word) {
  return concat(
      "no command '",
      word,
      "'.",
      did_you_mean(word, command_names(app)),
      " Run 'zmlx --help' for the list.");
}

std::string
unknown_option(const CLI::App& app, const CLI::App* command, std::string word) {
  word.resize(std::min(word.find('='), word.size()));
  const CLI::App& owner = command ? *command : app;
  return concat(
      "no option '",
      word,
      "'.",
      did_you_mean(word, option_names(owner)),
      " Run 'zmlx ",
      command ? command->get_name() + " " : "",
      "--help' for the list.");
}

// "Could not convert: --seed = x" says neither what is wrong nor what to do.
std::string bad_number(const CLI::App& command, std::string_view text) {
  const size_t colon = text.find(": "), equals = text.find(" = ");
  if (colon == text.npos || equals == text.npos) {
    return std::string(text);
  }
  const std::string name(text.substr(colon + 2, equals - colon - 2));
  const auto* option = command.get_option_no_throw(name);
  const std::string type = option ? option->get_type_name() : "";
  return concat(
      name,
      " must be ",
      type == "UINT"      ? "a whole number of 0 or more"
          : type == "INT" ? "a whole number"
                          : "a number",
      ", got '",
      text.substr(equals + 3),
      "'.");
}

} // namespace

const CLI::App* command_of(const CLI::App& app) {
  const auto given = app.get_subcommands();
  return given.empty() ? nullptr : given.front();
}

std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = command_of(app);
  // Words that nobody took are told first: they are mostly why something else
  // is missing.
  std::string stray;
  for (const auto& word : (command ? *command : app).remaining()) {
    if (word.size() > 1 && word[0] == '-') {
      return unknown_option(app, command, word);
    }
    if (!command) {
      return unknown_command(app, word);
    }
    stray = stray.empty() ? word : stray;
  }
  if (!stray.empty()) {
    return concat("no place for the argument '", stray, "'.");
  }
  const std::string name = error.get_name();
  if (name == "ConversionError" && command) {
    return bad_number(*command, error.what());
  }
  std::string message = error.what();
  if (!message.empty() && message.back() != '.') {
    message += '.';
  }
  return message;
}

CLI::Validator not_negative() {
  return CLI::Validator(
      [](const std::string& text) {
        return text.rfind('-', 0) == 0
            ? concat("must be a whole number of 0 or more, got '", text, "'")
            : "";
      },
      "");
}

} // namespace zmlx::cli
