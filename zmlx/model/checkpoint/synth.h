// SPDX-License-Identifier: MIT
// Random-weight checkpoints at a real model's shapes, for benchmarks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "zmlx/base/json.h"

namespace zmlx {

struct SynthOptions {
  std::string mode = "affine";
  /// By default what the mode has: 4 bits and groups of 64 for affine.
  std::optional<int> bits, group_size;
  /// Equal seeds, shapes and options give equal bytes.
  uint64_t seed = 0;
  /// The first so many layers only; by default all.
  std::optional<int> layers;
  /// A file ends before it would pass this many bytes, as in mlx_lm.
  uint64_t max_shard_bytes = uint64_t(5) << 30;
  /// Called with (done, total) bytes a few times a second; may throw to stop.
  std::function<void(uint64_t, uint64_t)> progress;
};

/// Throws FileError unless the disk of an existing folder has so many bytes
/// left; `out` is what the error names.
void check_disk_space(
    const std::string& folder,
    uint64_t needed,
    const std::string& out);

/// Names of the shapes, sorted: "lfm2-1.2b", "lfm2-8b-a1b", "lfm2-moe-tiny",
/// "qwen3-30b-a3b", "qwen3-moe-tiny".
std::vector<std::string> synth_shapes();

/// Writes config.json and model*.safetensors (with an index if there are
/// several) to out_folder, which must not exist or be empty. mlx_lm loads the
/// result. Scales, norms and unquantised weights are bfloat16, expert biases
/// float32; router gates have 8 bits and groups of 64. Values are drawn so that
/// activations stay near 1. All is written to "<out_folder>.partial" first,
/// which is removed when anything goes wrong. Needs less than 100 MB of memory.
/// Returns the bytes written. Throws std::invalid_argument for an unknown shape
/// or option, FileError when the disk has too little room or writing fails.
uint64_t synth(
    const std::string& shape_name,
    const std::string& out_folder,
    const SynthOptions& options = {});

} // namespace zmlx
