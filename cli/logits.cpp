// SPDX-License-Identifier: MIT
// zmlx logits: the logits of given tokens as a file.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/token_list.h"
#include "zmlx/base/error.h"
#include "zmlx/model/checkpoint/safetensors.h"

namespace zmlx::cli {
namespace {

struct Flags {
  ModelFlags model;
  std::string tokens, output;
  bool step = false;
  int chunk = 0; // 0: all at once
};

void check_tokens(const ModelInfo& info, const std::vector<int>& tokens) {
  for (const int token : tokens) {
    if (token >= info.vocab_size) {
      invalid(
          "logits",
          "--tokens must be in 0..",
          info.vocab_size - 1,
          ", got ",
          token,
          '.');
    }
  }
  if (info.max_positions > 0 && int(tokens.size()) > info.max_positions) {
    invalid(
        "logits",
        "--tokens must fit the model's context of ",
        info.max_positions,
        ", got ",
        tokens.size(),
        '.');
  }
}

// (length, vocab) float32 of the next `tokens` after what the cache holds.
mx::array rows_of(Model& model, Cache& cache, const std::vector<int>& tokens) {
  const int length = int(tokens.size());
  const mx::array input(tokens.begin(), {1, length}, mx::int32);
  const mx::array logits = model.network->forward(input, cache);
  mx::array rows = mx::astype(mx::reshape(logits, {length, -1}), mx::float32);
  mx::eval(rows);
  eval(cache);
  return rows;
}

mx::array all_rows(Model& model, const std::vector<int>& tokens, int chunk) {
  if (chunk == 0) {
    Cache none;
    return rows_of(model, none, tokens);
  }
  const Interrupt interrupt;
  Progress progress("Computing logits");
  Cache cache = model.network->make_cache();
  std::vector<mx::array> parts;
  for (size_t done = 0; done < tokens.size();) {
    interrupt.check();
    const size_t count = std::min(size_t(chunk), tokens.size() - done);
    const auto begin = tokens.begin() + std::ptrdiff_t(done);
    parts.push_back(rows_of(model, cache, {begin, begin + int(count)}));
    done += count;
    progress.update(long(done), long(tokens.size()), "tokens");
  }
  return mx::concatenate(parts, 0);
}

int run(const Flags& flags) {
  const auto tokens = parse_list(
      "logits",
      "--tokens",
      "ids",
      flags.tokens == "-" ? read_stdin() : flags.tokens);
  if (flags.chunk < 0) {
    invalid("logits", "--chunk must be at least 1, got ", flags.chunk, '.');
  }
  const auto model = load_model(flags.model, /* need_tokenizer= */ false);
  check_tokens(model->info, tokens);
  const mx::array logits =
      all_rows(*model, tokens, flags.step ? 1 : flags.chunk);
  save_safetensors(flags.output, {{"logits", logits}});
  return kGood;
}

} // namespace

void add_logits(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  auto& command =
      *app.add_subcommand("logits", "Save the logits of given tokens");
  command.add_option("M", flags->model.model, "Folder or Hugging Face id")
      ->type_name("")
      ->required();
  command.add_option("--tokens", flags->tokens, "Ids as 1,2,3; - reads stdin")
      ->type_name("IDS")
      ->required();
  command
      .add_option(
          "-o,--output",
          flags->output,
          "Safetensors file; logits (T, vocab) float32")
      ->type_name("F")
      ->required();
  auto* step = command.add_flag(
      "--step", flags->step, "Feed one token at a time through the cache");
  command
      .add_option("--chunk", flags->chunk, "Feed this many tokens at a time")
      ->excludes(step);
  add_model_flags(command, &flags->model);
  command.callback([flags, exit_code] { *exit_code = run(*flags); });
}

} // namespace zmlx::cli
