// SPDX-License-Identifier: MIT
// Raw kernels: the body of a Metal kernel as MLX's metal_kernel takes it, and
// its translation to CUDA and to C++ for the host.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace zmlx::dialect {

/// Goes into every cache key; changes when a translation or a prelude does.
inline constexpr int kKernelDialectVersion = 4;

/// Lines of the header count from here in compiled text, so that one number
/// tells them from lines of the body.
inline constexpr int kHeaderLine = 1000000;

/// An array that a kernel is given or fills.
struct KernelArray {
  std::string name;
  std::string type; // of an element: float, half, bfloat16_t, uint32_t, ...
  bool scalar = false; // an input without axes is passed as a reference
};

/// A template argument: `kind` is "typename", "int" or "bool".
struct KernelTemplate {
  std::string name;
  std::string kind;
  std::string value;
};

/// A kernel and how it is called this time.
struct KernelText {
  std::string name;
  std::string header;
  std::string body;
  std::vector<KernelArray> inputs;
  std::vector<KernelArray> outputs;
  std::vector<KernelTemplate> templates;
  bool atomic_outputs = false;
};

/// What a kernel's text makes use of.
struct KernelUse {
  /// Names of thread attributes (thread_position_in_grid ...) in the body.
  std::vector<std::string> attributes;
  /// Threads wait for each other or share memory.
  bool threads_meet = false;
  /// The size of threadgroups shows in the result.
  bool sees_threadgroups = false;
};
KernelUse kernel_use(const KernelText& text);

/// One C++20 file: the prelude, the kernel, and
/// `extern "C" int zm_run(const zm_launch*)` as zmlx/runtime/host_kernel.h
/// calls it: 0 when done, 1 for another version's launch. Its #line directives
/// name the author's lines. Throws std::invalid_argument for text that cannot
/// be cut into tokens.
std::string host_kernel_text(const KernelText& text, bool checked);

/// Header and source for MLX's cuda_kernel, whose parameters are the inputs in
/// order and, unless `whole_groups`, one more, `zm_size`: the grid's three
/// sizes as int32.
struct CudaKernelText {
  std::string header;
  std::string source;
};
CudaKernelText cuda_kernel_text(const KernelText& text, bool whole_groups);

} // namespace zmlx::dialect
