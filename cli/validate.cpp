// SPDX-License-Identifier: MIT
// zmlx validate: stock against patched, fidelity and speed.
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <unistd.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/token_list.h"
#include "zmlx/base/error.h"
#include "zmlx/measure/validate_report.h"
#include "zmlx/runtime/device_name.h"

namespace zmlx::cli {
namespace {

struct Flags {
  ModelFlags model;
  measure::ValidateOptions options;
  std::vector<std::string> tokens;
  std::string json;
};

// Told before the work, which may take long.
void check_folder_of(const std::string& path) {
  auto folder = std::filesystem::path(path).parent_path();
  folder = folder.empty() ? "." : folder;
  if (::access(folder.c_str(), W_OK) != 0) {
    bad_file(path, "cannot be written: no folder that can be written to.");
  }
}

std::string quoted(const std::string& word) {
  const bool plain = !word.empty() &&
      word.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
          "0123456789_-./,:=@%+") == std::string::npos;
  if (plain) {
    return word;
  }
  std::string text = "'";
  for (const char letter : word) {
    text += letter == '\'' ? "'\\''" : std::string(1, letter);
  }
  return text + '\'';
}

std::string command_of(const Flags& flags) {
  std::string text = concat(
      "zmlx validate ",
      quoted(flags.model.model),
      " --max-tokens ",
      flags.options.max_tokens,
      " --runs ",
      flags.options.runs);
  const auto add = [&](const char* option, const std::string& value) {
    text += value.empty() ? "" : concat(' ', option, ' ', quoted(value));
  };
  add("--dtype", flags.model.dtype);
  add("--patterns", flags.model.patterns);
  add("--exclude", flags.model.exclude);
  if (flags.model.threads) {
    add("--threads", std::to_string(*flags.model.threads));
  }
  if (const auto& kv = flags.options.kv; kv.bits != 0) {
    add("--kv-bits", std::to_string(kv.bits));
    add("--kv-group-size", std::to_string(kv.group_size));
    add("--quantized-kv-start", std::to_string(kv.start));
  }
  for (const auto& prompt : flags.options.prompts) {
    add("--prompt", prompt);
  }
  for (const auto& tokens : flags.tokens) {
    add("--tokens", tokens);
  }
  return text + (flags.options.raw ? " --raw" : "");
}

// MLX reads it at its first product. Without it stock, which patched is held
// to, rounds the factors of float32 products on GPUs to 10 bits.
void ask_for_whole_float32() {
  if (on_a_gpu()) {
    ::setenv("MLX_ENABLE_TF32", "0", /* overwrite= */ 0);
  }
}

int run(Flags flags) {
  ask_for_whole_float32();
  if (!flags.json.empty()) {
    check_folder_of(flags.json);
  }
  flags.options.patch = patch_options(flags.model);
  for (const auto& tokens : flags.tokens) {
    flags.options.token_prompts.push_back(
        parse_list("validate", "--tokens", "ids", tokens));
  }
  const auto model = load_stock(flags.model);
  const Interrupt interrupt;
  Progress progress("Validating");
  flags.options.progress =
      [&](const std::string& phase, long done, long total) {
        interrupt.check();
        progress.update(concat(phase, ": ", done, '/', total));
      };
  const auto result = measure::validate(*model, flags.options);
  progress.clear();
  if (!flags.json.empty()) {
    measure::write_capsule(
        flags.json, measure::to_capsule(result, command_of(flags)));
  }
  print(measure::to_text(result));
  return result.pass() ? kGood : kFailed;
}

} // namespace

void add_validate(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  auto& options = flags->options;
  auto& command = *app.add_subcommand(
      "validate", "Compare stock with patched: tokens, logits and speed");
  command.add_option("M", flags->model.model, "Folder or Hugging Face id")
      ->type_name("")
      ->required();
  command.add_option("-m,--max-tokens", options.max_tokens, "Tokens a prompt")
      ->capture_default_str();
  command.add_option("--runs", options.runs, "Timed runs a side")
      ->capture_default_str();
  command
      .add_option(
          "-p,--prompt", options.prompts, "A prompt; may be given many times")
      ->type_name("P")
      ->expected(1)
      ->take_all();
  command
      .add_option(
          "--tokens",
          flags->tokens,
          "A prompt as ids, 1,2,3; may be given many times")
      ->type_name("IDS")
      ->expected(1)
      ->take_all();
  add_cache_flags(command, &options.kv, 0);
  add_side_flags(command, &flags->model);
  command.add_flag("--raw", options.raw, "Use no chat template");
  command.add_option("--json", flags->json, "Write a capsule to this file")
      ->type_name("F");
  command.footer(
      "On a GPU, MLX_ENABLE_TF32 is 0 unless it is set.\n"
      "Exit code 0: proven, 1: not proven, 2: wrong use.");
  command.callback([flags, exit_code] { *exit_code = run(*flags); });
}

} // namespace zmlx::cli
