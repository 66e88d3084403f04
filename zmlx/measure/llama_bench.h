// SPDX-License-Identifier: MIT
// llama.cpp's own benchmark program, run as a neighbour to compare with.
#pragma once

#include <string>
#include <vector>

namespace zmlx::measure {

/// One test of a bench, as in llama-bench: a prompt of n_prompt tokens, or
/// n_gen single tokens, after n_depth tokens that are not timed.
struct BenchTest {
  int n_prompt = 0, n_gen = 0, n_depth = 0;
  int batch = 1; // sequences that get new tokens at once; llama-bench has none

  /// "pp512", "tg128", "tg128 @ d512", "tg128 x 8" (a batch).
  std::string name() const;
  /// Of one sequence.
  int tokens() const {
    return n_prompt + n_gen;
  }
  bool operator==(const BenchTest&) const = default;
};

/// A llama-bench program and the model that it runs.
struct LlamaBench {
  std::string program; // a path, or a name that is looked for in PATH
  std::string gguf;
  int threads = 1;

  /// Runs one repetition of a test; returns nanoseconds. Blocks until the
  /// program ends. Throws BackendError when it cannot be run, fails, or prints
  /// what is not its JSON.
  double run(const BenchTest& test) const;
};

/// The program to run: `given`, else "llama-bench".
std::string llama_bench_program(const std::string& given);

} // namespace zmlx::measure
