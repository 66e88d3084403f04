// SPDX-License-Identifier: MIT
// zmlx bench: llama-bench's tests and tables for a model; kernels against
// composed MLX operations.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/token_list.h"
#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/kernels/catalog.h"
#include "zmlx/measure/bench.h"
#include "zmlx/measure/kernel_bench.h"

namespace zmlx::cli {
namespace {

constexpr int kModelRepetitions = 5, kKernelRepetitions = 20;

struct Flags {
  ModelFlags model;
  std::vector<std::string> kernels;
  std::string n_prompt = "512", n_gen = "128", n_depth = "0", batches = "1";
  std::optional<int> repetitions;
  std::string output = "md";
  bool compare = false, stages = false;
  KVQuantization kv;
  std::string gguf, llama_bench;
};

void check_output(const std::string& name) {
  const std::vector<std::string> known = {"md", "json", "csv"};
  for (const auto& each : known) {
    if (name == each) {
      return;
    }
  }
  invalid(
      "bench",
      "-o must be one of ",
      join(known, ", "),
      "; got '",
      name,
      "'.",
      did_you_mean(name, known));
}

measure::BenchOptions options_of(const Flags& flags) {
  measure::BenchOptions options;
  options.n_prompt = parse_list("bench", "-p", "counts", flags.n_prompt);
  options.n_gen = parse_list("bench", "-n", "counts", flags.n_gen);
  options.n_depth = parse_list("bench", "-d", "counts", flags.n_depth);
  options.batches = parse_list("bench", "-b", "counts", flags.batches);
  options.repetitions = flags.repetitions.value_or(kModelRepetitions);
  options.stages = flags.stages;
  options.kv = flags.kv;
  return options;
}

measure::BenchSides sides_of(const Flags& flags, int threads) {
  measure::BenchSides which;
  which.patched = !flags.model.no_patch;
  which.stock = flags.model.no_patch || flags.compare;
  if (!flags.gguf.empty()) {
    which.llama = {
        measure::llama_bench_program(flags.llama_bench), flags.gguf, threads};
  }
  return which;
}

void print_result(const Flags& flags, const measure::BenchResult& result) {
  if (flags.output == "json") {
    print(measure::bench_json(result).dump(2) + '\n');
  } else if (flags.output == "csv") {
    print(measure::bench_csv(result));
  } else {
    print(measure::bench_markdown(result));
    print(measure::bench_stages(result));
    const std::string ratios = measure::bench_ratios(result);
    print(ratios.empty() ? "" : '\n' + ratios);
  }
}

int run_kernels(const Flags& flags) {
  if (!flags.model.model.empty()) {
    invalid(
        "bench",
        "takes kernels or --model, got '",
        flags.kernels[0],
        "' and --model ",
        flags.model.model,
        '.');
  }
  if (flags.output == "csv") {
    invalid("bench", "-o must be md or json for kernels, got 'csv'.");
  }
  std::vector<const KernelSpec*> specs;
  for (const auto& name : flags.kernels) {
    specs.push_back(&catalog().find(name, "bench"));
  }
  set_threads(flags.model);
  const Interrupt interrupt;
  Progress progress("Timing");
  measure::KernelBenchOptions options;
  options.repetitions = flags.repetitions.value_or(kKernelRepetitions);
  options.progress = [&](const std::string& kernel, int done, int total) {
    interrupt.check();
    progress.update(concat(kernel, ": ", done, '/', total, " cases"));
  };
  const auto result = measure::bench_kernels(specs, options);
  progress.clear();
  print(
      flags.output == "json" ? measure::to_json(result).dump(2) + '\n'
                             : measure::to_text(result));
  return kGood;
}

int run_model(const Flags& flags) {
  if (flags.model.model.empty()) {
    invalid("bench", "--model or a kernel is required.");
  }
  auto options = options_of(flags);
  const PatchOptions patches = patch_options(flags.model);
  if (flags.compare && flags.model.no_patch) {
    invalid("bench", "--compare goes without --no-patch.");
  }
  const auto model = load_stock(flags.model);
  const Interrupt interrupt;
  Progress progress("Timing");
  options.progress = [&](const std::string& what, int done, int total) {
    interrupt.check();
    progress.update(concat(what, ": ", done, '/', total, " runs"));
  };
  const auto sides = measure::sides_of(*model, patches);
  const auto result =
      measure::bench(*model, options, sides_of(flags, sides.threads), sides);
  progress.clear();
  print_result(flags, result);
  return kGood;
}

int run(const Flags& flags) {
  check_output(flags.output);
  return flags.kernels.empty() ? run_model(flags) : run_kernels(flags);
}

} // namespace

void add_bench(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  auto& command = *app.add_subcommand(
      "bench", "Time a model as llama-bench does, or kernels");
  command
      .add_option(
          "KERNEL", flags->kernels, "Kernels to time against composed MLX")
      ->type_name("");
  command
      .add_option("--model", flags->model.model, "Folder or Hugging Face id")
      ->type_name("M");
  command.add_option("-p", flags->n_prompt, "Prompt lengths; 0: none")
      ->type_name("N,N")
      ->capture_default_str();
  command.add_option("-n", flags->n_gen, "Numbers of new tokens; 0: none")
      ->type_name("N,N")
      ->capture_default_str();
  command
      .add_option("-b", flags->batches, "Sequences that get new tokens at once")
      ->type_name("N,N")
      ->capture_default_str();
  command.add_option("-d", flags->n_depth, "Tokens already in the cache")
      ->type_name("N,N")
      ->capture_default_str();
  command.add_option(
      "-r",
      flags->repetitions,
      "Repetitions of each test (5, or 20 of a kernel)");
  command.add_option("-o", flags->output, "md, json or csv")
      ->type_name("FORM")
      ->capture_default_str();
  command.add_flag(
      "--compare",
      flags->compare,
      "Patched and stock in turn, and their ratio");
  command.add_flag(
      "--stages", flags->stages, "Time the stages of a patched step too");
  command
      .add_option(
          "--gguf",
          flags->gguf,
          "llama-bench on this file in turn; stock only with\n--compare")
      ->type_name("F");
  command
      .add_option(
          "--llama-bench", flags->llama_bench, "That program (the one in PATH)")
      ->type_name("PROGRAM");
  add_cache_flags(command, &flags->kv, 0);
  add_model_flags(command, &flags->model);
  command.callback([flags, exit_code] { *exit_code = run(*flags); });
}

} // namespace zmlx::cli
