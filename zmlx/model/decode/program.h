// SPDX-License-Identifier: MIT
// The decode program: one token's way through a model as a flat list of stages
// over weights as they are stored. Data only: executors give it meaning.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "mlx/mlx.h"
#include "zmlx/kernels/attention/attention.h"
#include "zmlx/kernels/common/quantized_arrays.h"
#include "zmlx/kernels/moe/router.h"

namespace zmlx::decode {

namespace mx = mlx::core;

/// x / sqrt(mean(x^2) + eps) * weight; weight (dim) float32.
struct Norm {
  mx::array weight;
  float eps;
};

/// A (rows, cols) matrix as stored, or a stack (experts, rows, cols) of them.
using Weight = quant::AnyArrays;

/// y = W x + bias; bias (rows) float32.
struct Projection {
  Weight weight;
  std::optional<mx::array> bias = std::nullopt;

  int rows() const {
    return quant::rows_of(weight);
  }
  int cols() const {
    return quant::cols_of(weight);
  }
};

// Every stage works on a few vectors a token: the residual stream h (dim), and
// m, what a mixer hands on. `layer` is the entry of the model's cache.

/// h = row of the table.
struct EmbedStage {
  Weight table;
};

/// m = C * conv(B * x) with B, C, x the thirds of in(norm(h)), as LFM2's gated
/// short convolution; updates the layer's ConvCache.
struct ConvStage {
  Norm norm;
  Projection in; // (3 dim, dim)
  mx::array taps; // (taps, dim) float32, oldest first
  std::optional<mx::array> bias; // (dim) float32
  int layer;
};

/// Queries, keys and values of norm(h).
struct QkvStage {
  Norm norm;
  Projection q, k, v;
};

/// m = attention of the queries over the layer's KVCache, with the new key and
/// value appended. Norms are over head_dim; there are both or none.
struct AttendStage {
  attention::Spec spec;
  std::optional<mx::array> query_norm, key_norm; // (head_dim) float32
  int layer;
};

/// h += W m.
struct MixStage {
  Projection out;
};

/// Chooses experts by a router over norm(h), and computes silu(gate) * up of
/// each chosen one; without a router the stack of one is always chosen.
struct ExpertsStage {
  struct Router {
    moe::RouterSpec spec;
    Weight weight; // (experts, dim)
    std::optional<mx::array> bias; // (experts) float32, for the selection
  };
  Norm norm;
  std::optional<Router> router;
  Weight gate, up; // (experts, hidden, dim)
};

/// h += sum over the chosen experts of weight * down(hidden).
struct CombineStage {
  Weight down; // (experts, dim, hidden)
};

/// logits = W norm(h).
struct HeadStage {
  Norm norm;
  Projection out; // (vocab, dim)
};

using Stage = std::variant<
    EmbedStage,
    ConvStage,
    QkvStage,
    AttendStage,
    MixStage,
    ExpertsStage,
    CombineStage,
    HeadStage>;

/// Ends with a HeadStage; each CombineStage follows its ExpertsStage, and each
/// ConvStage has its MixStage next.
struct Program {
  int dim = 0;
  int vocab = 0;
  std::vector<Stage> stages;
};

/// What one kind of stage took in a number of steps.
struct StageTime {
  std::string name;
  int count = 0; // stages of a step
  double seconds = 0; // all of them, over `steps`
  int64_t steps = 0;
  /// Of weights that a step read in them, on average, each of an expert's once
  /// however many sequences went there; and of caches that the last one read.
  uint64_t bytes = 0;
};

/// The name of a stage in tables: "embed", "conv", "qkv", ...
const char* name_of(const Stage& stage);

} // namespace zmlx::decode
