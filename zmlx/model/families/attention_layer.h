// SPDX-License-Identifier: MIT
// Attention layers and their rotary positions, as families' files name them.
#pragma once

#include <string>

#include "zmlx/model/families/weights.h"
#include "zmlx/model/layers/mixers.h"

namespace zmlx {

/// What a checkpoint calls the parts of an attention layer, and which it has.
struct AttentionNames {
  std::string q = "q_proj", k = "k_proj", v = "v_proj", out = "o_proj";
  /// Empty: queries and keys are not normalised.
  std::string q_norm, k_norm;
  bool qkv_bias = false, out_bias = false;
};

/// The layer below `path` of a model of width dim; eps is of its norms.
MixerSlot make_attention(
    Weights& weights,
    const std::string& path,
    const AttentionNames& names,
    const Attention::Shape& shape,
    int dim,
    float eps);

/// Reads num_attention_heads, num_key_value_heads and, where it is given,
/// head_dim, else hidden_size / num_attention_heads. Throws FileError.
Attention::Shape read_heads(const Config& config, int dim);

/// Reads 'rope_theta', and 'rope_parameters' or 'rope_scaling' of the types
/// default, linear (Chen et al., arXiv:2306.15595) and llama3, whose periods
/// are computed as mlx_lm's Llama3RoPE does. theta: where the file gives none;
/// 0: it must. Throws FileError for other types.
attention::Rope read_rope(const Config& config, int head_dim, float theta = 0);

} // namespace zmlx
