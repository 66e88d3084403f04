// SPDX-License-Identifier: MIT
// Times kernels of the catalog against composed MLX operations.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "zmlx/authoring/kernel_spec.h"
#include "zmlx/base/json.h"
#include "zmlx/measure/machine.h"

namespace zmlx::measure {

struct KernelBenchOptions {
  int repetitions = 20; // timed calls a side, after a few that are not
  /// Called before each row.
  std::function<void(const std::string& kernel, int done, int total)> progress;
};

/// One kernel on one case, checked and timed.
struct KernelBenchRow {
  std::string kernel, what; // its name, and the case as text
  std::vector<double> seconds, composed_seconds;
  Traffic traffic;

  double bytes_per_second() const;
  /// Composed MLX's median over the kernel's.
  double speedup() const;
};

struct KernelBench {
  Machine machine;
  int threads = 1;
  std::string backend; // "cpu", "metal" or "cuda"
  double read_bandwidth = 0; // measured, bytes a second
  std::vector<KernelBenchRow> rows;
};

/// Checks the values of every small case of each kernel, then those of the
/// timed cases, and times both sides interleaved on the default device (on the
/// CPU where the kernel runs only there). Throws BackendError naming the first
/// difference, and std::invalid_argument unless repetitions are at least 1.
KernelBench bench_kernels(
    const std::vector<const KernelSpec*>& specs,
    const KernelBenchOptions& options = {});

/// A table in Markdown and what it was measured on.
std::string to_text(const KernelBench& bench);

/// An array with one object a row.
Json to_json(const KernelBench& bench);

} // namespace zmlx::measure
