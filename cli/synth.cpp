// SPDX-License-Identifier: MIT
// zmlx synth: a random-weight checkpoint at a real model's shapes.
#include <memory>
#include <string>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/usage.h"
#include "zmlx/base/text.h"
#include "zmlx/model/checkpoint/synth.h"

namespace zmlx::cli {
namespace {

struct Flags {
  std::string shape, folder;
  SynthOptions options;
};

int run(const Flags& flags) {
  SynthOptions options = flags.options;
  const Interrupt interrupt;
  Progress progress("Writing " + flags.folder);
  options.progress = [&](uint64_t done, uint64_t total) {
    interrupt.check();
    progress.update(human_bytes(done) + " of " + human_bytes(total));
  };
  const uint64_t bytes = synth(flags.shape, flags.folder, options);
  progress.clear();
  print(fmt::format("Wrote {} to {}\n", human_bytes(bytes), flags.folder));
  return kGood;
}

} // namespace

void add_synth(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  auto& command =
      *app.add_subcommand("synth", "Write random weights at a model's shapes");
  command
      .add_option(
          "SHAPE", flags->shape, "One of " + join(synth_shapes(), ",\n"))
      ->type_name("")
      ->required();
  command.add_option("OUT", flags->folder, "A new or empty folder")
      ->type_name("")
      ->required();
  command.add_option("--bits", flags->options.bits, "Bits a weight")
      ->capture_default_str();
  command
      .add_option(
          "--mode", flags->options.mode, "affine, mxfp4, nvfp4 or mxfp8")
      ->capture_default_str()
      ->type_name("MODE");
  command.add_option(
      "--group-size",
      flags->options.group_size,
      "Weights a scale (what the mode has)");
  command.add_option(
      "--layers", flags->options.layers, "The first so many layers only");
  command.add_option("--seed", flags->options.seed, "Of the values")
      ->check(not_negative())
      ->capture_default_str();
  command.callback([flags, exit_code] { *exit_code = run(*flags); });
}

} // namespace zmlx::cli
