// SPDX-License-Identifier: MIT
// A raw kernel compiled for the CPU.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "mlx/mlx.h"
#include "zmlx/dialect/kernel_text.h"

namespace zmlx {

namespace mx = mlx::core;

/// The dialect's name of a dtype. Throws std::invalid_argument for float64,
/// which Metal does not have; `op` names the kernel.
std::string dialect_type(const std::string& op, mx::Dtype dtype);

class HostKernel {
 public:
  using Size = std::array<int, 3>;

  /// Translates and compiles, or takes what was compiled before. Throws
  /// CompileError with the author's line, BackendError without a compiler.
  HostKernel(const dialect::KernelText& text, bool checked);

  /// Runs the kernel over a grid of threads on the thread team. Arrays are
  /// evaluated; outputs allocated and row contiguous. In checked mode returns
  /// what was found, one sentence each.
  std::vector<std::string> run(
      const std::vector<mx::array>& inputs,
      const std::vector<mx::array>& outputs,
      Size grid,
      Size threadgroup) const;

 private:
  std::string name_;
  bool checked_;
  bool sees_threadgroups_;
  int (*entry_)(const void* launch);
};

} // namespace zmlx
