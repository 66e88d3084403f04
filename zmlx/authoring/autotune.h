// SPDX-License-Identifier: MIT
// Finds the fastest of several configurations by measuring, and remembers it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "zmlx/authoring/arrays.h"

namespace zmlx {

/// What a kernel can be run with: {{"threadgroup", 256}}.
using TuneConfig = std::map<std::string, int64_t>;

/// "threadgroup=256 unroll=4"; "default" for none.
std::string to_text(const TuneConfig& config);

/// One configuration as measured.
struct TuneTiming {
  TuneConfig config;
  double seconds = 0; // the median; NaN when there is a failure
  double spread = 0; // between the quartiles, as a part of the median
  /// What it threw, or how its outputs differ from the first good ones.
  std::string failure;
};

struct TuneOptions {
  int warmup = 3, iterations = 10;
  bool use_cache = true;
};

struct TuneResult {
  TuneConfig best;
  /// In the order of the candidates.
  std::vector<TuneTiming> timings;
  /// Found on disk, where an earlier call left it.
  bool cached = false;
  /// Why the result could not be kept on disk, or "".
  std::string cache_problem;
};

/// Runs every candidate on inputs: warm-up, a check that its outputs are those
/// of the first one that works, then medians of interleaved runs. The result is
/// kept below ZMLX_CACHE_DIR under name, candidates, the shapes and types of
/// inputs, device, threads, and the versions of MLX and zmlx; processes may do
/// so at the same time, and a damaged file counts as none. Throws
/// std::invalid_argument without candidates, and BackendError with every
/// candidate's failure when none works.
TuneResult autotune(
    const std::string& name,
    const Arrays& inputs,
    const std::vector<TuneConfig>& candidates,
    const std::function<Arrays(const Arrays& inputs, const TuneConfig& config)>&
        run,
    const TuneOptions& options = {});

/// {{"threadgroup", n}} for each power of two in 32 .. most (at most 1024).
std::vector<TuneConfig> threadgroup_candidates(int64_t most = 1024);

} // namespace zmlx
