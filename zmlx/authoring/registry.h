// SPDX-License-Identifier: MIT
// The kernels that are known, by name. Families add theirs when they are asked
// to (see kernels/catalog.h); nothing registers itself.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "zmlx/authoring/kernel_spec.h"

namespace zmlx {

class Registry {
 public:
  /// Throws std::invalid_argument for a name that is taken, and for a spec that
  /// lacks what tests and pages are made from.
  void add(KernelSpec spec);

  const std::vector<KernelSpec>& kernels() const {
    return kernels_;
  }

  /// Throws std::invalid_argument that names the nearest kernel; op is who
  /// asked.
  const KernelSpec& find(std::string_view name, std::string_view op) const;

 private:
  std::vector<KernelSpec> kernels_;
};

/// One line a kernel: name, family, devices, gradient, summary.
std::string kernels_table(const Registry& registry);

/// One kernel's contract.
std::string kernel_text(const KernelSpec& spec);

/// The page docs/kernels.md.
std::string kernels_markdown(const Registry& registry);

} // namespace zmlx
