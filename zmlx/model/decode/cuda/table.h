// SPDX-License-Identifier: MIT
// The decode program as the CUDA kernel reads it: plain records in device
// memory. Included by the host and, as text, by the kernel.

namespace zmlx_decode {

/// A (rows, cols) matrix, or a stack of them, in MLX's affine packing.
struct Matrix {
  unsigned long long words, scales, biases; // device addresses
  int cols; // of one row
  int bits; // 4 or 8
  int group_shift; // log2 of the group size
  int padding;
};

enum Kind { kConv, kQkv, kAttend, kMerge, kMix, kExperts, kCombine, kHead };

/// One stage. A unit is what one block takes at once; a unit has tiles of 16
/// rows, a tile has pieces of piece_cols columns. Offsets count floats in the
/// exchange area.
struct Stage {
  int kind;
  int units, tiles, pieces, piece_cols;
  int inner_pieces; // pieces of one matrix row; pieces / inner_pieces experts
  int x_len; // values of the input vector
  // A piece in its slot: two times eight rows of words, then two of scales and
  // two of biases, in bytes.
  int row_bytes, words_step, scales_at, scales_step, groups;
  int x_at, out_at;
  int rows_a, rows_b; // kQkv: rows of a and of b; kExperts: hidden
  int dim;
  float eps;
  int norm_len;
  unsigned long long norm; // (norm_len) float, or 0
  Matrix a, b, c;
  // The router's: in kMix, the one of the next stage.
  Matrix router;
  unsigned long long router_norm, router_bias;
  int experts, top_k, partials_at, partial_rows;
  int softmax, weight_from_biased, renormalise;
  float router_eps, router_scale;
  // Convolution and attention.
  unsigned long long taps, conv_bias, state, keys, values;
  unsigned long long query_norm, key_norm;
  int num_taps, heads, kv_heads, head_dim, capacity, splits;
  int chunk_rows; // positions attended at once, up to 64
  int padding[3];
};

/// What stays the same over tokens. Offsets are in bytes of a block's shared
/// memory.
struct Program {
  unsigned long long stages;
  int num_stages, dim, vocab, exchange_len;
  int slots, slot_bytes;
  int slots_at, digits_at, scales_at, sums_at, partials_at, red_at, memory_len;
  int half_head; // 0 without attention
  float log_theta; // log(theta) / half_head
  int embedded_at; // where the token's row of the embedding goes
  Matrix embedding;
};

/// One token's own values.
struct Step {
  int token; // or below 0: the one the last step chose
  int position;
  unsigned count; // arrivals at grid barriers before this launch
  float temperature; // 0: greedy
  unsigned long long seed;
};

} // namespace zmlx_decode
