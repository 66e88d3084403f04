// SPDX-License-Identifier: MIT
// The modules that patch() installs. Each keeps the stock module it stands for.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "zmlx/model/layers/linear.h"
#include "zmlx/model/layers/mixers.h"
#include "zmlx/model/layers/mlp.h"
#include "zmlx/model/layers/moe.h"

namespace zmlx {

/// A fused layer in place of `stock`.
class FusedLayer : public Layer {
 public:
  FusedLayer(LayerSlot stock, std::string kind)
      : stock(std::move(stock)), kind_(std::move(kind)) {}
  std::string_view kind() const override {
    return kind_;
  }
  const Module& stock_module() const override {
    return *stock;
  }
  const LayerSlot stock;

 private:
  const std::string kind_;
};

/// A fused mixer in place of `stock`; its projections stay patchable.
class FusedMixer : public Mixer {
 public:
  FusedMixer(MixerSlot stock, std::string kind)
      : stock(std::move(stock)), kind_(std::move(kind)) {}
  std::string_view kind() const override {
    return kind_;
  }
  const Module& stock_module() const override {
    return *stock;
  }
  const MixerSlot stock;

 private:
  const std::string kind_;
};

/// A fused module for a stock one, or why there is none for it.
struct Fusion {
  LayerSlot layer;
  MixerSlot mixer;
  int width = 0; // of the last axis of a layer's input, for the probe
  std::string reason; // not empty: left stock
};

/// Each takes a slot's module and returns nothing (all fields empty) when it is
/// not of the kind that the pattern replaces.
Fusion fuse_moe_mlp(const LayerSlot& module);
Fusion fuse_swiglu_mlp(const LayerSlot& module);
Fusion fuse_quantized_linear(const LayerSlot& module);
Fusion fuse_linear(const LayerSlot& module);
Fusion fuse_rmsnorm(const LayerSlot& module);
Fusion fuse_attention(const MixerSlot& module, mx::Dtype dtype);
Fusion fuse_short_conv(const MixerSlot& module, mx::Dtype dtype);
Fusion fuse_norm_qkv(const MixerSlot& module, mx::Dtype dtype);

} // namespace zmlx
