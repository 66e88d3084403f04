// SPDX-License-Identifier: MIT
// Which side of a comparison a model is on, and the change to the other.
#pragma once

#include "zmlx/measure/validate.h"

namespace zmlx::measure {

/// Patches and unpatches a model as asked, and leaves it stock.
class SideSwitch {
 public:
  /// The model is made stock first.
  SideSwitch(Model& model, const Sides& sides);
  ~SideSwitch();
  SideSwitch(const SideSwitch&) = delete;
  SideSwitch& operator=(const SideSwitch&) = delete;

  /// Returns true when the side changed.
  bool to(bool patched);

  /// What the last patch() did.
  const PatchResult& patch_result() const {
    return patch_result_;
  }

 private:
  Model& model_;
  const Sides& sides_;
  bool patched_ = false;
  PatchResult patch_result_;
};

} // namespace zmlx::measure
