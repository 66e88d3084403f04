// SPDX-License-Identifier: MIT
#include "cli/model_flags.h"

#include "cli/progress.h"
#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::cli {
namespace {

LoadOptions load_options(const ModelFlags& flags) {
  LoadOptions options;
  if (!flags.dtype.empty()) {
    options.dtype = dtype_from_name(flags.dtype);
  }
  return options;
}

std::unique_ptr<Model> load_with_progress(
    const std::string& name,
    const LoadOptions& options) {
  Progress progress("Loading " + name);
  return load(name, options);
}

} // namespace

void add_side_flags(CLI::App& app, ModelFlags* flags) {
  app.add_option(
         "--dtype",
         flags->dtype,
         "Activations: float32, float16 or bfloat16\n"
         "(float32 on CPU, the checkpoint's own on a GPU)")
      ->type_name("D");
  app.add_option(
         "--patterns", flags->patterns, "Patch with these only, commas between")
      ->type_name("A,B");
  app.add_option("--exclude", flags->exclude, "Patch without these")
      ->type_name("A,B");
  app.add_option(
      "--threads",
      flags->threads,
      "Of the CPU ($ZMLX_THREADS, or all processors)");
}

void add_model_flags(CLI::App& app, ModelFlags* flags) {
  add_side_flags(app, flags);
  app.add_flag("--no-patch", flags->no_patch, "Run stock MLX operations");
}

void add_cache_flags(CLI::App& app, KVQuantization* kv, int start) {
  kv->start = start;
  app.add_option(
         "--kv-bits", kv->bits, "Bits of cached keys and values; 0: all")
      ->capture_default_str();
  app.add_option("--kv-group-size", kv->group_size, "Values a scale")
      ->capture_default_str();
  app.add_option(
         "--quantized-kv-start",
         kv->start,
         "Tokens from which on --kv-bits holds")
      ->capture_default_str();
}

PatchOptions patch_options(const ModelFlags& flags) {
  PatchOptions patches{split(flags.patterns, ','), split(flags.exclude, ',')};
  if (flags.no_patch && !(flags.patterns + flags.exclude).empty()) {
    invalid("patch", "--no-patch goes without --patterns and --exclude.");
  }
  check_patterns(patches);
  return patches;
}

void set_threads(const ModelFlags& flags) {
  const int most = usable_processors();
  const int threads = flags.threads ? *flags.threads : num_threads();
  if (threads < 1 || threads > most) {
    invalid(
        "threads",
        "--threads must be 1 to ",
        most,
        ", the processors that this process may use, got ",
        threads,
        '.');
  }
  set_num_threads(threads);
}

std::unique_ptr<Model> load_model(
    const ModelFlags& flags,
    bool need_tokenizer) {
  const PatchOptions patches = patch_options(flags);
  set_threads(flags);
  LoadOptions options = load_options(flags);
  options.need_tokenizer = need_tokenizer;
  options.skip_tokenizer = !need_tokenizer;
  auto model = load_with_progress(flags.model, options);
  if (!flags.no_patch) {
    Progress progress("Patching and checking against stock");
    patch(*model, patches);
  }
  return model;
}

std::unique_ptr<Model> load_stock(const ModelFlags& flags) {
  set_threads(flags);
  return load_with_progress(flags.model, load_options(flags));
}

} // namespace zmlx::cli
