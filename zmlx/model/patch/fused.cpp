// SPDX-License-Identifier: MIT
#include "zmlx/model/patch/fused.h"

#include "zmlx/base/error.h"
#include "zmlx/kernels/attention/attention.h"
#include "zmlx/kernels/conv/short_conv.h"
#include "zmlx/kernels/dense/dense.h"
#include "zmlx/kernels/moe/moe_mlp.h"
#include "zmlx/kernels/norms/rms_norm.h"
#include "zmlx/kernels/quant/quantized_matmul.h"
#include "zmlx/model/layers/packed_arrays.h"
#include "zmlx/model/quantized_cache.h"

namespace zmlx {
namespace {

/// A fused layer whose forward is a function of arrays it owns.
template <class Forward>
class FusedLayerOf : public FusedLayer {
 public:
  FusedLayerOf(LayerSlot stock, std::string kind, Forward forward)
      : FusedLayer(std::move(stock), std::move(kind)),
        forward_(std::move(forward)) {}
  mx::array forward(const mx::array& x) const override {
    return forward_(x);
  }

 private:
  Forward forward_;
};

template <class Forward>
LayerSlot fused(const LayerSlot& stock, Forward forward) {
  return std::make_shared<FusedLayerOf<Forward>>(
      stock, concat("Fused", stock->kind()), std::move(forward));
}

constexpr const char* kNoBias = "its projections must have no bias";

/// Gate, up and down of a block, or why they cannot be taken.
struct TakenExperts {
  std::optional<moe::ExpertArrays> arrays;
  std::string reason;
};

template <class Weight>
TakenExperts
take(const Weight& gate_proj, const Weight& up_proj, const Weight& down_proj) {
  const auto gate = stored_arrays(gate_proj), up = stored_arrays(up_proj),
             down = stored_arrays(down_proj);
  for (const auto* part : {&gate, &up, &down}) {
    if (!part->arrays) {
      return {{}, part->reason};
    }
    if (part->bias) {
      return {{}, kNoBias};
    }
  }
  return {
      moe::ExpertArrays{
          moe::Projection(*gate.arrays),
          moe::Projection(*up.arrays),
          moe::Projection(*down.arrays)},
      ""};
}

int width_of(const moe::ExpertArrays& experts) {
  return quant::cols_of(experts.up.weight);
}

Fusion left_stock(std::string reason) {
  Fusion fusion;
  fusion.reason = std::move(reason);
  return fusion;
}

Fusion install(LayerSlot layer, int width) {
  Fusion fusion;
  fusion.layer = std::move(layer);
  fusion.width = width;
  return fusion;
}

} // namespace

Fusion fuse_moe_mlp(const LayerSlot& module) {
  const auto* stock = dynamic_cast<const SparseMoe*>(module.get());
  if (!stock) {
    return {};
  }
  const auto router = stored_arrays(stock->gate);
  if (!router.arrays || router.bias) {
    return left_stock(router.arrays ? kNoBias : router.reason);
  }
  const auto& mlp = *stock->switch_mlp;
  const auto experts =
      take(mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight);
  if (!experts.arrays) {
    return left_stock(experts.reason);
  }
  return install(
      fused(
          module,
          [spec = stock->router,
           router = moe::Projection(*router.arrays),
           bias = stock->expert_bias,
           experts = *experts.arrays](const mx::array& x) {
            return moe::moe_mlp(x, spec, router, bias, experts);
          }),
      width_of(*experts.arrays));
}

Fusion fuse_swiglu_mlp(const LayerSlot& module) {
  const auto* stock = dynamic_cast<const SwigluMlp*>(module.get());
  if (!stock) {
    return {};
  }
  const auto weights = take(stock->gate_proj, stock->up_proj, stock->down_proj);
  if (!weights.arrays) {
    return left_stock(weights.reason);
  }
  return install(
      fused(
          module,
          [weights = *weights.arrays](const mx::array& x) {
            return moe::gated_mlp(x, weights);
          }),
      width_of(*weights.arrays));
}

Fusion fuse_quantized_linear(const LayerSlot& module) {
  const auto* stock = dynamic_cast<const QuantizedLinear*>(module.get());
  if (!stock) {
    return {};
  }
  const auto weight = packed_arrays(module);
  if (!weight.arrays) {
    return left_stock(weight.reason);
  }
  return install(
      fused(
          module,
          [weight = *weight.arrays, bias = weight.bias](const mx::array& x) {
            return quant::quantized_matmul(x, weight, bias);
          }),
      stock->weight.cols());
}

Fusion fuse_linear(const LayerSlot& module) {
  const auto* stock = dynamic_cast<const Linear*>(module.get());
  if (!stock) {
    return {};
  }
  const auto& weight = stock->weight.weight.stored();
  if (!quant::is_float(weight.dtype())) {
    return left_stock(
        concat("its weight must be a floating type, got ", weight.dtype()));
  }
  std::optional<mx::array> bias;
  if (stock->bias) {
    bias = stock->bias->stored();
  }
  return install(
      fused(
          module,
          [weight, bias](const mx::array& x) {
            return dense::dense_matmul(x, weight, bias);
          }),
      weight.shape(1));
}

Fusion fuse_rmsnorm(const LayerSlot& module) {
  const auto* stock = dynamic_cast<const RMSNorm*>(module.get());
  if (!stock) {
    return {};
  }
  return install(
      fused(
          module,
          [weight = stock->weight.stored(), eps = stock->eps](
              const mx::array& x) { return norms::rms_norm(x, weight, eps); }),
      stock->weight.stored().shape(0));
}

namespace {

/// The stock norm in a slot, even if a fused one is there now; null where the
/// slot is empty or holds another kind.
const RMSNorm* norm_in(const LayerSlot& slot) {
  return slot ? dynamic_cast<const RMSNorm*>(&slot->stock_module()) : nullptr;
}

class FusedAttention : public FusedMixer {
 public:
  FusedAttention(MixerSlot stock, Attention& attention)
      : FusedMixer(std::move(stock), "FusedAttention"),
        attention_(attention),
        query_norm_(norm_in(attention.parts.q_layernorm)),
        key_norm_(norm_in(attention.parts.k_layernorm)) {}

  std::vector<Child> children() override {
    auto& parts = attention_.parts;
    return {
        {"q_proj", parts.q_proj.get(), &parts.q_proj},
        {"k_proj", parts.k_proj.get(), &parts.k_proj},
        {"v_proj", parts.v_proj.get(), &parts.v_proj},
        {"out_proj", parts.out_proj.get(), &parts.out_proj}};
  }

  mx::array forward(const mx::array& x, LayerCache* cache) const override {
    const auto& parts = attention_.parts;
    if (auto* packed = dynamic_cast<QuantizedKVCache*>(cache)) {
      // Other bits have no kernel; stock goes on through these projections.
      return packed->bits == 8 || packed->bits == 4
          ? parts.out_proj->forward(attend(x, *packed))
          : stock->forward(x, cache);
    }
    KVCache whole_sequence;
    auto& kv = cache ? static_cast<KVCache&>(*cache) : whole_sequence;
    return parts.out_proj->forward(attend(x, kv));
  }

 private:
  static std::optional<mx::array> weight_of(const RMSNorm* norm) {
    return norm ? std::optional(norm->weight.stored()) : std::nullopt;
  }

  attention::Spec spec() const {
    const auto& shape = attention_.shape;
    return {
        shape.heads,
        shape.kv_heads,
        shape.head_dim,
        shape.rope,
        query_norm_ ? query_norm_->eps : 0};
  }

  mx::array attend(const mx::array& x, KVCache& kv) const {
    const auto& shape = attention_.shape;
    const auto& parts = attention_.parts;
    const int length = x.shape(1);
    kv.reserve(
        length, {x.shape(0), shape.kv_heads, 0, shape.head_dim}, mx::float32);
    attention::Outputs out = attention::attend(
        {parts.q_proj->forward(x),
         parts.k_proj->forward(x),
         parts.v_proj->forward(x),
         weight_of(query_norm_),
         weight_of(key_norm_),
         *kv.keys,
         *kv.values},
        spec(),
        kv.offset);
    kv.keys = std::move(out.cached_keys);
    kv.values = std::move(out.cached_values);
    kv.offset += length;
    return out.y;
  }

  mx::array attend(const mx::array& x, QuantizedKVCache& kv) const {
    const auto& parts = attention_.parts;
    kv.reserve(x.shape(1));
    auto packed = [](const QuantizedRows& rows) {
      return attention::PackedCache{rows.words, rows.scales, rows.biases};
    };
    auto unpacked = [](attention::PackedCache& cache) {
      return QuantizedRows{
          std::move(cache.words),
          std::move(cache.scales),
          std::move(cache.biases)};
    };
    auto out = attention::attend_packed(
        {parts.q_proj->forward(x),
         parts.k_proj->forward(x),
         parts.v_proj->forward(x),
         weight_of(query_norm_),
         weight_of(key_norm_),
         packed(kv.keys),
         packed(kv.values)},
        spec(),
        kv.offset);
    kv.keys = unpacked(out.cached_keys);
    kv.values = unpacked(out.cached_values);
    kv.offset += x.shape(1);
    return out.y;
  }

  Attention& attention_; // owned by stock
  const RMSNorm* query_norm_; // or null, both
  const RMSNorm* key_norm_;
};

class FusedShortConv : public FusedMixer {
 public:
  FusedShortConv(MixerSlot stock, ShortConv& conv)
      : FusedMixer(std::move(stock), "FusedShortConv"), conv_(conv) {}

  std::vector<Child> children() override {
    return conv_.children();
  }

  mx::array forward(const mx::array& x, LayerCache* cache) const override {
    const auto projected = conv_.in_proj->forward(x);
    auto* state = static_cast<ConvCache*>(cache);
    const auto before = state && state->inputs
        ? *state->inputs
        : mx::zeros(
              {x.shape(0), conv_.taps() - 1, projected.shape(2) / 3},
              mx::float32);
    std::optional<mx::array> bias;
    if (conv_.conv_bias) {
      bias = conv_.conv_bias->stored();
    }
    auto [y, inputs] = conv::gated_short_conv(
        projected, before, conv_.conv_weight.stored(), bias);
    if (state) {
      state->inputs = std::move(inputs);
    }
    return conv_.out_proj->forward(y);
  }

 private:
  ShortConv& conv_; // owned by stock
};

std::string why_not_float32(mx::Dtype dtype) {
  return dtype == mx::float32
      ? ""
      : concat("activations must be float32, got ", dtype);
}

} // namespace

Fusion fuse_attention(const MixerSlot& module, mx::Dtype dtype) {
  auto* stock = dynamic_cast<Attention*>(module.get());
  if (!stock) {
    return {};
  }
  Fusion fusion;
  fusion.reason = why_not_float32(dtype);
  for (const auto* slot :
       {&stock->parts.q_layernorm, &stock->parts.k_layernorm}) {
    if (*slot && !norm_in(*slot)) {
      fusion.reason = "queries and keys must be normalised by RMSNorm";
    }
  }
  if (fusion.reason.empty()) {
    fusion.mixer = std::make_shared<FusedAttention>(module, *stock);
  }
  return fusion;
}

Fusion fuse_short_conv(const MixerSlot& module, mx::Dtype dtype) {
  auto* stock = dynamic_cast<ShortConv*>(module.get());
  if (!stock) {
    return {};
  }
  Fusion fusion;
  fusion.reason = why_not_float32(dtype);
  if (fusion.reason.empty()) {
    fusion.mixer = std::make_shared<FusedShortConv>(module, *stock);
  }
  return fusion;
}

} // namespace zmlx
