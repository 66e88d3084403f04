// SPDX-License-Identifier: MIT
#include "zmlx/measure/side_switch.h"

#include <exception>

#include "zmlx/runtime/thread_team.h"

namespace zmlx::measure {

Sides sides_of(const Model& model, const PatchOptions& options) {
  Sides sides;
  sides.patch = [options](Model& target) { return patch(target, options); };
  sides.unpatch = [](Model& target) { unpatch(target); };
  sides.load_oracle = [folder = model.folder] {
    LoadOptions wide;
    wide.dtype = mx::float32;
    return load(folder, wide);
  };
  if (mx::default_device() == mx::Device::cpu) {
    sides.set_threads = set_num_threads;
    sides.threads = num_threads();
  }
  return sides;
}

SideSwitch::SideSwitch(Model& model, const Sides& sides)
    : model_(model), sides_(sides) {
  sides_.unpatch(model_);
}

SideSwitch::~SideSwitch() {
  try {
    to(false);
  } catch (const std::exception&) {
    // Only reached while another error is on its way to the caller.
  }
}

bool SideSwitch::to(bool patched) {
  if (patched == patched_) {
    return false;
  }
  if (patched) {
    patch_result_ = sides_.patch(model_);
  } else {
    sides_.unpatch(model_);
  }
  patched_ = patched;
  return true;
}

} // namespace zmlx::measure
