// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/lower.h"

#include "zmlx/base/error.h"
#include "zmlx/model/layers/mixers.h"
#include "zmlx/model/layers/mlp.h"
#include "zmlx/model/layers/moe.h"
#include "zmlx/model/layers/packed_arrays.h"

namespace zmlx::decode {
namespace {

/// What cannot be lowered; its text is the reason.
struct Unsupported {
  std::string reason;
};

template <class Kind, class Slot>
const Kind& stock(const Slot& slot, const char* wanted) {
  const auto* module = dynamic_cast<const Kind*>(&slot->stock_module());
  if (!module) {
    throw Unsupported{concat("must be ", wanted, ", got ", slot->kind())};
  }
  return *module;
}

mx::array as_float(const mx::array& array) {
  return mx::contiguous(mx::astype(array, mx::float32));
}

std::optional<mx::array> as_float(const std::optional<mx::array>& array) {
  return array ? std::optional(as_float(*array)) : std::nullopt;
}

template <class Source>
StoredArrays stored(const Source& source) {
  auto stored = stored_arrays(source);
  if (!stored.arrays) {
    throw Unsupported{stored.reason};
  }
  return stored;
}

Weight weight_of(const std::variant<DenseWeight, PackedWeight>& weight) {
  return *stored(weight).arrays;
}

Weight without_bias(const LayerSlot& layer) {
  auto [arrays, bias, reason] = stored(layer);
  if (bias) {
    throw Unsupported{"its projections must have no bias"};
  }
  return *std::move(arrays);
}

Projection projection(const LayerSlot& layer) {
  auto [arrays, bias, reason] = stored(layer);
  return {*std::move(arrays), as_float(bias)};
}

Norm norm(const LayerSlot& layer) {
  const auto& rms = stock<RMSNorm>(layer, "RMSNorm");
  return {as_float(rms.weight.stored()), rms.eps};
}

class Builder {
 public:
  void embed(const Embedding& embedding) {
    auto table = weight_of(embedding.weight);
    program.dim = quant::cols_of(table);
    push(EmbedStage{std::move(table)});
  }

  void mixer(const LayerSlot& before, const MixerSlot& slot, int layer) {
    if (const auto* conv =
            dynamic_cast<const ShortConv*>(&slot->stock_module())) {
      const auto& weight = conv->conv_weight.stored(); // (dim, taps, 1)
      std::optional<mx::array> bias;
      if (conv->conv_bias) {
        bias = as_float(conv->conv_bias->stored());
      }
      push(
          ConvStage{
              norm(before),
              projection(conv->in_proj),
              as_float(mx::transpose(mx::squeeze(weight, 2))),
              bias,
              layer});
      push(MixStage{projection(conv->out_proj)});
      return;
    }
    const auto& attention = stock<Attention>(slot, "ShortConv or Attention");
    const auto& parts = attention.parts;
    push(
        QkvStage{
            norm(before),
            projection(parts.q_proj),
            projection(parts.k_proj),
            projection(parts.v_proj)});
    std::optional<Norm> query_norm, key_norm;
    if (parts.q_layernorm) {
      query_norm = norm(parts.q_layernorm);
      key_norm = norm(parts.k_layernorm);
    }
    const auto weight_of_norm = [](const std::optional<Norm>& one) {
      return one ? std::optional(one->weight) : std::nullopt;
    };
    const auto& shape = attention.shape;
    push(
        AttendStage{
            {shape.heads,
             shape.kv_heads,
             shape.head_dim,
             shape.rope,
             query_norm ? query_norm->eps : 0},
            weight_of_norm(query_norm),
            weight_of_norm(key_norm),
            layer});
    push(MixStage{projection(parts.out_proj)});
  }

  void feed_forward(const LayerSlot& before, const LayerSlot& slot) {
    if (const auto* mlp =
            dynamic_cast<const SwigluMlp*>(&slot->stock_module())) {
      push(
          ExpertsStage{
              norm(before),
              std::nullopt,
              without_bias(mlp->gate_proj),
              without_bias(mlp->up_proj)});
      push(CombineStage{without_bias(mlp->down_proj)});
      return;
    }
    const auto& moe = stock<SparseMoe>(slot, "MLP or a mixture of experts");
    const auto& experts = *moe.switch_mlp;
    push(
        ExpertsStage{
            norm(before),
            ExpertsStage::Router{
                moe.router, without_bias(moe.gate), as_float(moe.expert_bias)},
            weight_of(experts.gate_proj.weight),
            weight_of(experts.up_proj.weight)});
    push(CombineStage{weight_of(experts.down_proj.weight)});
  }

  void head(const LayerSlot& before, const LayerSlot& slot) {
    auto out = projection(slot);
    program.vocab = out.rows();
    push(HeadStage{norm(before), std::move(out)});
  }

  Program program;

 private:
  template <class S>
  void push(S stage) {
    program.stages.emplace_back(std::move(stage));
  }
};

} // namespace

Lowered lower(const Network& network) {
  const auto backbone = network.backbone();
  if (!backbone) {
    return {nullptr, "the network must be made of residual blocks"};
  }
  Builder builder;
  std::string where = "the embedding";
  try {
    builder.embed(*backbone->embedding);
    for (size_t i = 0; i < backbone->blocks.size(); ++i) {
      const auto& block = backbone->blocks[i];
      where = concat("the mixer of layer ", i);
      builder.mixer(block.norm, block.mixer, static_cast<int>(i));
      where = concat("the feed-forward of layer ", i);
      builder.feed_forward(block.ffn_norm, block.feed_forward);
    }
    where = "the head";
    builder.head(backbone->final_norm, backbone->head);
  } catch (const Unsupported& unsupported) {
    return {nullptr, concat(where, ": ", unsupported.reason)};
  }
  return {std::make_shared<const Program>(std::move(builder.program)), ""};
}

} // namespace zmlx::decode
