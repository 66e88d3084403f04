// SPDX-License-Identifier: MIT
// The flags of every command that runs a model, and loading by them.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "zmlx/model/patch/patch.h"
#include "zmlx/model/quantized_cache.h"

namespace zmlx::cli {

/// What the flags say.
struct ModelFlags {
  std::string model;
  std::string dtype; // "": the default of load()
  bool no_patch = false;
  std::string patterns, exclude; // names with commas between; "": none given
  std::optional<int> threads; // none: ZMLX_THREADS, or all processors
};

/// Adds --dtype, --patterns, --exclude and --threads.
void add_side_flags(CLI::App& app, ModelFlags* flags);

/// Adds the same and --no-patch.
void add_model_flags(CLI::App& app, ModelFlags* flags);

/// As mlx_lm.generate has it.
inline constexpr int kQuantizedStart = 5000;

/// Adds --kv-bits, --kv-group-size and --quantized-kv-start.
void add_cache_flags(CLI::App& app, KVQuantization* kv, int start);

/// What patch() is asked for. Throws std::invalid_argument for an unknown
/// pattern.
PatchOptions patch_options(const ModelFlags& flags);

/// Sets the threads of CPU kernels. Throws std::invalid_argument where
/// --threads or ZMLX_THREADS asks for more than there are; the loaders below
/// call it.
void set_threads(const ModelFlags& flags);

/// Loads the model stock, with its tokenizer where it has one.
std::unique_ptr<Model> load_stock(const ModelFlags& flags);

/// Loads the model and patches it unless no_patch, with a line of progress on
/// a terminal. Names of dtypes and patterns are checked before the work starts.
std::unique_ptr<Model> load_model(const ModelFlags& flags, bool need_tokenizer);

} // namespace zmlx::cli
