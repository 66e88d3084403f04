// SPDX-License-Identifier: MIT
#include "zmlx/model/module.h"

namespace zmlx {
namespace {

void walk_below(
    Module& module,
    const std::string& prefix,
    const std::function<void(const std::string&, Child&)>& visit) {
  for (auto& child : module.children()) {
    const std::string path =
        prefix.empty() ? child.name : prefix + '.' + child.name;
    visit(path, child);
    // The visitor may have put another module into the slot: go down that one.
    Module* below = child.module;
    if (auto* slot = std::get_if<LayerSlot*>(&child.slot)) {
      below = (*slot)->get();
    } else if (auto* mixer = std::get_if<MixerSlot*>(&child.slot)) {
      below = (*mixer)->get();
    }
    walk_below(*below, path, visit);
  }
}

} // namespace

void walk(
    Module& root,
    const std::function<void(const std::string& path, Child& child)>& visit) {
  walk_below(root, "", visit);
}

} // namespace zmlx
