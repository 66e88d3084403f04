// SPDX-License-Identifier: MIT
// Times implementations of one thing against each other, after checking that
// they agree.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "zmlx/authoring/arrays.h"

namespace zmlx::bench {

/// Seconds of each call of each side: samples[side][round]. Every side is
/// called warmup times first; then rounds go A B, B A, A B, ... A side is
/// called for an evaluated result; what it returns is evaluated in the time.
std::vector<std::vector<double>> time_interleaved(
    const std::vector<std::function<Arrays()>>& sides,
    int warmup,
    int rounds);

struct Implementation {
  std::string name;
  ArrayFunction run;
};

struct CompareOptions {
  std::vector<mx::Dtype> dtypes = {mx::float32, mx::float16};
  int inputs = 1; // arrays of the shape that each implementation takes
  int warmup = 5, iterations = 20;
  uint64_t seed = 42;
};

/// All implementations on one shape and type.
struct CompareRow {
  mx::Shape shape;
  mx::Dtype dtype = mx::float32;
  /// One an implementation: the median, and the distance between the quartiles
  /// as a part of it. Empty when there is a failure.
  std::vector<double> microseconds, spreads;
  /// The first implementation's time over the second's: above 1 the second is
  /// faster. NaN unless there are two.
  double speedup = 0;
  /// Which implementation threw, or differs from the first, and how; not timed
  /// then.
  std::string failure;
};

/// Runs the implementations on normal values of every shape and type, checks
/// that each gives what the first does, and times them interleaved. Throws
/// std::invalid_argument without implementations, shapes or dtypes.
std::vector<CompareRow> compare(
    const std::vector<Implementation>& implementations,
    const std::vector<mx::Shape>& shapes,
    const CompareOptions& options = {});

/// A table: shape, type, a column an implementation, speedup.
std::string to_text(
    const std::vector<Implementation>& implementations,
    const std::vector<CompareRow>& rows);

} // namespace zmlx::bench
