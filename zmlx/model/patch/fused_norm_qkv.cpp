// SPDX-License-Identifier: MIT
// A mixer that takes the norm before it together with its projections.
#include "zmlx/kernels/quant/norm_qkv.h"
#include "zmlx/model/layers/norm.h"
#include "zmlx/model/layers/packed_arrays.h"
#include "zmlx/model/patch/fused.h"

namespace zmlx {
namespace {

class FusedNormQkv : public FusedMixer {
 public:
  FusedNormQkv(
      MixerSlot stock,
      ProjectingMixer& mixer,
      std::vector<quant::PackedLinear> linears)
      : FusedMixer(std::move(stock), "FusedNormQkv"),
        mixer_(mixer),
        linears_(std::move(linears)) {}

  std::vector<Child> children() override {
    return mixer_.children();
  }

  mx::array forward(const mx::array& x, LayerCache* cache) const override {
    return mixer_.forward(x, cache);
  }

  mx::array forward_normed(
      const Layer& norm,
      const mx::array& x,
      LayerCache* cache) const override {
    const auto* rms = dynamic_cast<const RMSNorm*>(&norm.stock_module());
    if (!rms) {
      return mixer_.forward_normed(norm, x, cache);
    }
    return mixer_.forward_projected(
        quant::rms_norm_qkv(
            x, {rms->weight.stored(), rms->eps, false, linears_}),
        cache);
  }

 private:
  ProjectingMixer& mixer_; // owned by stock
  const std::vector<quant::PackedLinear> linears_;
};

} // namespace

Fusion fuse_norm_qkv(const MixerSlot& module, mx::Dtype) {
  auto* mixer = dynamic_cast<ProjectingMixer*>(module.get());
  if (!mixer) {
    return {};
  }
  std::vector<quant::PackedLinear> linears;
  for (const auto& projection : mixer->projections()) {
    if (!dynamic_cast<const QuantizedLinear*>(&projection->stock_module())) {
      return {};
    }
    const auto taken = packed_arrays(projection);
    Fusion fusion;
    fusion.reason = taken.reason;
    if (!taken.arrays) {
      return fusion;
    }
    linears.push_back({*taken.arrays, taken.bias});
  }
  Fusion fusion;
  fusion.mixer =
      std::make_shared<FusedNormQkv>(module, *mixer, std::move(linears));
  return fusion;
}

} // namespace zmlx
