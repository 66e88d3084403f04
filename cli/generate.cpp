// SPDX-License-Identifier: MIT
// zmlx generate: streams text, then mlx_lm's tail.
#include <memory>
#include <string>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/usage.h"
#include "zmlx/base/json.h"
#include "zmlx/measure/memory.h"
#include "zmlx/model/generate.h"

namespace zmlx::cli {
namespace {

constexpr const char* kRule = "==========\n";

struct Flags {
  ModelFlags model;
  std::string prompt;
  GenerateOptions options;
  bool json = false;
};

// Tokens a second; the first one is part of the prompt's time.
double prompt_rate(const Piece& last) {
  return last.prompt_seconds > 0 ? last.prompt_tokens / last.prompt_seconds : 0;
}

double generation_rate(const Piece& last) {
  return last.generation_seconds > 0
      ? (last.generated_tokens - 1) / last.generation_seconds
      : 0;
}

double peak_gigabytes() {
  return double(measure::peak_memory()) / 1e9;
}

// The words and precision of mlx_lm.generate, which scripts read.
std::string tail(const Piece& last) {
  return fmt::format(
      "Prompt: {} tokens, {:.3f} tokens-per-sec\n"
      "Generation: {} tokens, {:.3f} tokens-per-sec\n"
      "Peak memory: {:.3f} GB\n",
      last.prompt_tokens,
      prompt_rate(last),
      last.generated_tokens,
      generation_rate(last),
      peak_gigabytes());
}

std::string json_line(const Json& object) {
  return object.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
}

std::string piece_json(const Piece& piece) {
  Json object{{"token", piece.token}, {"text", piece.text}};
  if (!piece.finish_reason.empty()) {
    object["finish_reason"] = piece.finish_reason;
  }
  return json_line(object);
}

std::string tail_json(const Piece& last) {
  return json_line(
      {{"prompt_tokens", last.prompt_tokens},
       {"prompt_tps", prompt_rate(last)},
       {"generation_tokens", last.generated_tokens},
       {"generation_tps", generation_rate(last)},
       {"peak_memory_gb", peak_gigabytes()}});
}

// Prints pieces until the end or Ctrl-C; returns the last one.
Piece stream(Model& model, const Flags& flags, const Interrupt& interrupt) {
  Progress progress("Reading the prompt");
  GenerateOptions options = flags.options;
  options.progress = [&](int done, int total) {
    interrupt.check();
    progress.update(done, total, "tokens");
  };
  Piece piece;
  bool any_text = false;
  Generation generation = generate(model, flags.prompt, std::move(options));
  if (!flags.json) {
    progress.clear();
    print(kRule);
  }
  while (!interrupt.wanted() && generation.next(piece)) {
    progress.clear();
    any_text |= !piece.text.empty();
    if (flags.json) {
      print(piece_json(piece));
    } else if (!piece.text.empty()) {
      print(piece.text);
    }
  }
  if (!flags.json && !any_text && piece.generated_tokens > 0) {
    print("No text generated for this prompt");
  }
  return piece;
}

int run(Flags flags) {
  Sampler{flags.options.sampler}; // a bad option is told before loading
  if (flags.options.kv.bits != 0) {
    check(flags.options.kv);
  }
  if (flags.prompt == "-") {
    flags.prompt = read_stdin();
  }
  const auto model = load_model(flags.model, /* need_tokenizer= */ true);
  const Interrupt interrupt;
  const Piece last = stream(*model, flags, interrupt);
  if (flags.json) {
    print(tail_json(last));
  } else {
    print(fmt::format("\n{}{}", kRule, tail(last)));
  }
  return interrupt.wanted() ? kInterrupted : kGood;
}

void add_sampling_flags(CLI::App& app, GenerateOptions* options) {
  auto& sampler = options->sampler;
  app.add_option("-m,--max-tokens", options->max_tokens, "Most tokens to make")
      ->capture_default_str();
  app.add_option("--temp", sampler.temperature, "0 takes the likeliest token")
      ->capture_default_str();
  app.add_option("--top-p", sampler.top_p, "Keep the likeliest of this mass");
  app.add_option("--top-k", sampler.top_k, "Keep this many of the likeliest");
  app.add_option(
      "--min-p", sampler.min_p, "Keep at least this part of the likeliest");
  app.add_option("--seed", sampler.seed, "Of the draws")
      ->check(not_negative())
      ->capture_default_str();
}

} // namespace

void add_generate(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  auto& command = *app.add_subcommand("generate", "Stream text from a prompt");
  command
      .add_option("--model", flags->model.model, "Folder or Hugging Face id")
      ->type_name("M")
      ->required();
  command.add_option("-p,--prompt", flags->prompt, "The prompt; - reads stdin")
      ->type_name("P")
      ->required();
  add_sampling_flags(command, &flags->options);
  add_model_flags(command, &flags->model);
  command.add_flag("--raw", flags->options.raw, "Use no chat template");
  command
      .add_option(
          "--prefill-step-size",
          flags->options.prefill_step,
          "Prompt tokens a step")
      ->capture_default_str();
  add_cache_flags(command, &flags->options.kv, kQuantizedStart);
  command.add_flag("--json", flags->json, "One JSON object a token");
  command.callback([flags, exit_code] { *exit_code = run(*flags); });
}

} // namespace zmlx::cli
