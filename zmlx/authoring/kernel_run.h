// SPDX-License-Identifier: MIT
// Builds the primitive of a kernel call on each backend.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "zmlx/authoring/kernel.h"
#include "zmlx/dialect/kernel_text.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/host_kernel.h"

namespace zmlx {

/// A call with every default filled in.
struct KernelCall {
  KernelSize grid, threadgroup;
  std::vector<mx::Shape> output_shapes;
  std::vector<mx::Dtype> output_dtypes;
  std::vector<KernelTemplateArgument> templates;
  std::optional<float> init_value;
  bool empty = false; // no output has an element
};

/// Keeps what was compiled for each combination of dtypes and templates.
class KernelRunner {
 public:
  explicit KernelRunner(KernelSource source);

  /// On the default device, or at once on the CPU when checked.
  std::vector<mx::array> run(
      const std::vector<mx::array>& inputs,
      const KernelCall& call,
      bool checked);

 private:
  using Arrays = std::vector<mx::array>;
  dialect::KernelText text_of(const Arrays& inputs, const KernelCall& call)
      const;
  /// Tells apart calls that need other kernels, without making their text.
  std::string key_of(const Arrays& inputs, const KernelCall& call) const;
  std::shared_ptr<const HostKernel>
  host_kernel(const Arrays& inputs, const KernelCall& call, bool checked);
  /// A CPU operation of the call's outputs and the kernel's name.
  Arrays on_cpu(Arrays inputs, const KernelCall& call, CpuTask task) const;
  /// Inputs as the kernel reads them. Throws where they have no values yet.
  Arrays evaluated(const Arrays& inputs) const;
  Arrays run_cpu(const Arrays& inputs, const KernelCall& call);
  Arrays run_checked(const Arrays& inputs, const KernelCall& call);
  Arrays run_metal(const Arrays& inputs, const KernelCall& call);
  Arrays run_cuda(const Arrays& inputs, const KernelCall& call);

  const KernelSource source_;
  const std::string op_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const HostKernel>> host_;
  std::map<std::string, mx::fast::CustomKernelFunction> gpu_;
};

} // namespace zmlx
