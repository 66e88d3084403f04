// SPDX-License-Identifier: MIT
// Sequence mixers: attention and the gated short convolution.
#pragma once

#include "zmlx/kernels/attention/attention.h"
#include "zmlx/model/cache.h"
#include "zmlx/model/layers/norm.h"
#include "zmlx/model/module.h"

namespace zmlx {

/// Causal grouped-query attention with rotary positions (halves rotated, not
/// pairs); queries and keys are normalised first, as LFM2's and Qwen3's, or
/// not, as Llama's.
class Attention : public ProjectingMixer {
 public:
  struct Shape {
    int heads = 1, kv_heads = 1, head_dim = 64;
    attention::Rope rope = {};
  };
  struct Parts {
    LayerSlot q_proj, k_proj, v_proj, out_proj;
    LayerSlot q_layernorm = nullptr, k_layernorm = nullptr; // both or none
  };
  Attention(Shape shape, Parts parts) : shape(shape), parts(std::move(parts)) {}
  std::string_view kind() const override {
    return "Attention";
  }
  std::vector<Child> children() override;
  std::vector<LayerSlot> projections() const override {
    return {parts.q_proj, parts.k_proj, parts.v_proj};
  }
  mx::array forward_projected(
      const std::vector<mx::array>& projected,
      LayerCache* cache) const override;

  Shape shape;
  Parts parts;
};

/// LFM2's gated short convolution: out((C * conv(B * x'))) with B, C, x' the
/// thirds of in(x) and a causal depthwise convolution of `taps` inputs.
class ShortConv : public ProjectingMixer {
 public:
  ShortConv(
      LayerSlot in_proj,
      LayerSlot out_proj,
      Parameter conv_weight,
      std::optional<Parameter> conv_bias)
      : in_proj(std::move(in_proj)),
        out_proj(std::move(out_proj)),
        conv_weight(std::move(conv_weight)),
        conv_bias(std::move(conv_bias)) {}
  std::string_view kind() const override {
    return "ShortConv";
  }
  std::vector<Child> children() override;
  std::vector<LayerSlot> projections() const override {
    return {in_proj};
  }
  mx::array forward_projected(
      const std::vector<mx::array>& projected,
      LayerCache* cache) const override;

  void release() override {
    conv_weight.release();
  }

  int taps() const {
    return conv_weight.stored().shape(1);
  }

  LayerSlot in_proj, out_proj;
  Parameter conv_weight; // (dim, taps, 1)
  std::optional<Parameter> conv_bias; // (dim)
};

} // namespace zmlx
