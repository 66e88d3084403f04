// SPDX-License-Identifier: MIT
// The sparse mixture-of-experts block.
#pragma once

#include <optional>
#include <string>

#include "zmlx/kernels/moe/router.h"
#include "zmlx/model/layers/linear.h"

namespace zmlx {

/// mlx_lm's SwitchGLU: gate, up and down of every expert.
class SwitchGlu : public Module {
 public:
  using Weight = std::variant<DenseWeight, PackedWeight>; // (experts, out, in)
  SwitchGlu(Weight gate, Weight up, Weight down)
      : gate_proj(std::move(gate)),
        up_proj(std::move(up)),
        down_proj(std::move(down)) {}
  std::string_view kind() const override {
    return "SwitchGLU";
  }
  std::vector<Child> children() override {
    return {
        {"gate_proj", &gate_proj, {}},
        {"up_proj", &up_proj, {}},
        {"down_proj", &down_proj, {}}};
  }
  /// x (..., dim) by the experts of indices (..., k): (..., k, dim).
  mx::array forward(const mx::array& x, const mx::array& indices) const;

  SwitchLinear gate_proj, up_proj, down_proj;
};

/// Router, experts, weighted sum, in mlx_lm's order of operations.
class SparseMoe : public Layer {
 public:
  SparseMoe(
      std::string kind,
      moe::RouterSpec router,
      LayerSlot gate,
      std::optional<mx::array> expert_bias,
      std::unique_ptr<SwitchGlu> switch_mlp);
  std::string_view kind() const override {
    return kind_;
  }
  std::vector<Child> children() override {
    return {{"gate", gate.get(), &gate}, {"switch_mlp", switch_mlp.get(), {}}};
  }
  mx::array forward(const mx::array& x) const override;

  moe::RouterSpec router;
  LayerSlot gate; // dim to experts
  std::optional<mx::array> expert_bias; // (experts) float32
  std::unique_ptr<SwitchGlu> switch_mlp;

 private:
  /// Expert ids (..., k) and weights (..., k) in x's dtype.
  std::pair<mx::array, mx::array> route(const mx::array& x) const;

  std::string kind_;
};

} // namespace zmlx
