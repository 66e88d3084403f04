// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/moe_mlp.h"

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/multiply_rows.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/kernels/moe/gated_experts.h"
#include "zmlx/runtime/cpu_op.h"

namespace zmlx::moe {
namespace {

/// A quantised matrix without its arrays: what a task needs to view them again.
struct Format {
  int bits, group_size;
  std::shared_ptr<const cpu::RowBlocks> blocks;
  explicit Format(const quant::QuantizedArrays& w)
      : bits(w.bits), group_size(w.group_size), blocks(w.blocks) {}
};

void append(std::vector<mx::array>& inputs, const quant::QuantizedArrays& w) {
  inputs.insert(inputs.end(), {w.words, w.scales, w.biases});
}

cpu::PackedMatrix
view(const std::vector<mx::array>& in, size_t first, const Format& format) {
  return quant::view(
      {in[first],
       in[first + 1],
       in[first + 2],
       format.bits,
       format.group_size,
       format.blocks});
}

void check(
    const char* op,
    const mx::array& x,
    const ExpertArrays& weights,
    size_t axes) {
  for (const auto* w : {&weights.gate, &weights.up, &weights.down}) {
    if (const auto why = quant::why_unsupported(*w, "affine"); !why.empty()) {
      invalid(op, why, '.');
    }
    if (w->words.ndim() != axes) {
      invalid(
          op, "weights must have ", axes, " axes, got ", w->words.shape(), '.');
    }
  }
  const auto columns = [](const quant::QuantizedArrays& w) {
    return static_cast<int>(int64_t{w.words.shape(-1)} * 32 / w.bits);
  };
  const int dim = columns(weights.gate);
  const int hidden = weights.gate.words.shape(-2);
  if (x.ndim() == 0 || x.shape(-1) != dim || columns(weights.up) != dim ||
      weights.up.words.shape(-2) != hidden || columns(weights.down) != hidden ||
      weights.down.words.shape(-2) != dim) {
    invalid(
        op,
        "gate and up must be (hidden, dim) and down (dim, hidden) for x ",
        x.shape(),
        ", got gate (",
        hidden,
        ", ",
        dim,
        "), up (",
        weights.up.words.shape(-2),
        ", ",
        columns(weights.up),
        "), down (",
        weights.down.words.shape(-2),
        ", ",
        columns(weights.down),
        ").");
  }
}

/// Router logits of every token, (tokens, experts).
std::vector<float> router_logits(
    ThreadTeam& team,
    const cpu::PackedMatrix& w,
    const std::vector<const float*>& x) {
  std::vector<float> logits(x.size() * static_cast<size_t>(w.rows));
  std::vector<float*> out;
  for (size_t i = 0; i < x.size(); ++i) {
    out.push_back(logits.data() + i * static_cast<size_t>(w.rows));
  }
  cpu::multiply_rows(team, w, x, out);
  return logits;
}

} // namespace

mx::array moe_mlp(
    const mx::array& x,
    const RouterSpec& router,
    const quant::QuantizedArrays& router_weight,
    const std::optional<mx::array>& expert_bias,
    const ExpertArrays& experts) {
  check("moe_mlp", x, experts, 3);
  const int count = experts.gate.words.shape(0);
  if (router.top_k < 1 || router.top_k > count ||
      router_weight.words.shape(0) != count) {
    invalid(
        "moe_mlp",
        "the router must choose 1 to ",
        count,
        " of ",
        count,
        " experts, got ",
        router.top_k,
        " of ",
        router_weight.words.shape(0),
        '.');
  }
  std::vector<mx::array> inputs = {x};
  append(inputs, router_weight);
  append(inputs, experts.gate);
  append(inputs, experts.up);
  append(inputs, experts.down);
  if (expert_bias) {
    inputs.push_back(mx::astype(*expert_bias, mx::float32));
  }
  return cpu_op(
      "MoeMlpCpu",
      std::move(inputs),
      {{x.shape(), x.dtype()}},
      [router,
       count,
       formats = std::vector<Format>{
           Format(router_weight),
           Format(experts.gate),
           Format(experts.up),
           Format(experts.down)}](const auto& in, auto& out) {
        RowsInOut rows(in[0], out[0]);
        if (rows.x.empty()) {
          return;
        }
        const auto team = thread_team();
        const auto logits =
            router_logits(*team, view(in, 1, formats[0]), rows.x);
        const float* bias =
            in.size() > 13 ? in[13].template data<float>() : nullptr;
        const size_t pairs = rows.x.size() * router.top_k;
        std::vector<int> ids(pairs);
        std::vector<float> weights(pairs);
        for (size_t t = 0; t < rows.x.size(); ++t) {
          route(
              router,
              logits.data() + t * count,
              bias,
              count,
              ids.data() + t * router.top_k,
              weights.data() + t * router.top_k);
        }
        const cpu::GatedExperts experts{
            view(in, 4, formats[1]),
            view(in, 7, formats[2]),
            view(in, 10, formats[3])};
        const cpu::Routes routes{
            ids.data(), weights.data(), router.top_k, count};
        cpu::gated_experts(*team, experts, routes, rows.x, rows.y);
        rows.store();
      })[0];
}

mx::array swiglu_mlp(const mx::array& x, const ExpertArrays& weights) {
  check("swiglu_mlp", x, weights, 2);
  std::vector<mx::array> inputs = {x};
  append(inputs, weights.gate);
  append(inputs, weights.up);
  append(inputs, weights.down);
  return cpu_op(
      "SwigluMlpCpu",
      std::move(inputs),
      {{x.shape(), x.dtype()}},
      [formats =
           std::vector<Format>{
               Format(weights.gate), Format(weights.up), Format(weights.down)}](
          const auto& in, auto& out) {
        RowsInOut rows(in[0], out[0]);
        const size_t count = rows.x.size();
        const std::vector<int> ids(count, 0);
        const std::vector<float> ones(count, 1.0f);
        const cpu::GatedExperts layer{
            view(in, 1, formats[0]),
            view(in, 4, formats[1]),
            view(in, 7, formats[2])};
        cpu::gated_experts(
            *thread_team(),
            layer,
            {ids.data(), ones.data(), 1, 1},
            rows.x,
            rows.y);
        rows.store();
      })[0];
}

} // namespace zmlx::moe
