// SPDX-License-Identifier: MIT
// The gated feed-forward layer of dense models.
#pragma once

#include <utility>

#include "zmlx/model/module.h"

namespace zmlx {

/// silu(gate) * up, as mlx_lm.models.activations.swiglu.
mx::array swiglu(const mx::array& gate, const mx::array& up);

/// down(silu(gate(x)) * up(x)).
class SwigluMlp : public Layer {
 public:
  SwigluMlp(LayerSlot gate_proj, LayerSlot up_proj, LayerSlot down_proj)
      : gate_proj(std::move(gate_proj)),
        up_proj(std::move(up_proj)),
        down_proj(std::move(down_proj)) {}
  std::string_view kind() const override {
    return "MLP";
  }
  std::vector<Child> children() override {
    return {
        {"gate_proj", gate_proj.get(), &gate_proj},
        {"up_proj", up_proj.get(), &up_proj},
        {"down_proj", down_proj.get(), &down_proj}};
  }
  mx::array forward(const mx::array& x) const override {
    return down_proj->forward(
        swiglu(gate_proj->forward(x), up_proj->forward(x)));
  }

  LayerSlot gate_proj, up_proj, down_proj;
};

} // namespace zmlx
