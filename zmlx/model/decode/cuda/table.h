// SPDX-License-Identifier: MIT
// The decode program as the CUDA kernel reads it: plain records in device
// memory. Included by the host and, as text, by the kernel.
#pragma once

namespace zmlx_decode {

constexpr int kWarps = 16; // that multiply
constexpr int kProducers = 4; // warps that load
constexpr int kConsumers = kWarps * 32;
constexpr int kThreads = kConsumers + kProducers * 32;
constexpr int kChunk = 128; // columns a warp takes at once
constexpr int kRows = 16; // of a tile
constexpr int kMaxChunks = kWarps; // of a piece
constexpr int kFlush = 8; // tiles reduced at once
constexpr int kRedStride = 17;
constexpr int kRedLen = kFlush * kWarps * kRedStride;
constexpr int kMaxSlots = 16;
constexpr int kScalesStep = 8 * kMaxChunks * 4 + 32; // of affine: see Stage
constexpr int kMaxTopK = 16;
constexpr int kMaxOwn = 4; // units of 16 rows of the residual stream a block
constexpr int kMaxHalf = 64; // half a head
constexpr int kMaxSplits = 32; // of the context
constexpr int kMaxDim = 4 * kConsumers; // of the residual stream: 128 tiles
constexpr int kMaxShares = 60; // of the hidden vectors of a layer
constexpr int kMaxTaps = 8; // of a convolution
constexpr int kMaxExperts = kConsumers / 4;
constexpr int kMaxAttended = 1024; // a group's heads times head_dim
constexpr int kLine = 32; // words of the second-level cache that travel alone
constexpr int kMaxBlocks = 256; // of the grid
// Behind both halves of the exchange area, in lines: a count of arrivals a
// multiplying warp; where these began, and the numbers of launches and tokens;
// the count of blocks that have ended; that of waits given up; four words a
// block with its choice of a token, once more for every other token.
constexpr int kStartAt = kWarps * kLine;
constexpr int kEndedAt = kStartAt + kLine;
constexpr int kGaveUpAt = kEndedAt + kLine;
constexpr int kChoicesAt = kGaveUpAt + kLine;
constexpr int kCountsLen = kChoicesAt + 2 * 4 * kMaxBlocks;
constexpr int kHeadBytes = 8192; // of shared memory, in front of the slots

/// What fields of a matrix are: integers with a scale and a bias a group of 64
/// or 128, 16 bits each; or e2m1 or e4m3 floats, with a scale of a byte a group
/// of 32 or 16: e8m0, but for kNvfp4, where it is e4m3.
enum Scheme { kAffine, kMxfp4, kNvfp4, kMxfp8 };

/// A (rows, cols) matrix, or a stack of them, in MLX's packing.
struct Matrix {
  unsigned long long words, scales, biases; // device addresses
  int cols; // of one row
  int bits; // 4 or 8
  int group_shift; // log2 of the group size
  int scheme;
};

enum Kind { kConv, kQkv, kAttend, kMerge, kMix, kExperts, kCombine, kHead };

/// One stage. A unit is what one block takes at once; a unit has tiles of 16
/// rows, a tile has pieces of piece_cols columns. Offsets count floats in one
/// half of the exchange area.
struct Stage {
  int kind;
  int units, tiles, pieces, piece_cols;
  int inner_pieces; // pieces of one matrix row; pieces / inner_pieces experts
  // kCombine: the input vector has so many shares, each of up to kWarps chunks
  // if there are more than one, and a share so many blocks; pieces are those of
  // a share. Else 1, and all blocks.
  int shares, sharers;
  int x_len; // values of the input vector
  // A piece in its slot: two times eight rows of words, then two of scales and
  // two of biases, if any, in bytes; scale_bytes: of a row's. scales_step is
  // kScalesStep where there are biases.
  int row_bytes, words_step, scales_at, scales_step, scale_bytes;
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
  // Sums of two words and so many terms: the logits, then the mean square; then
  // the factor that they are taken by.
  int logits_at, terms;
  int experts, top_k;
  int softmax, weight_from_biased, renormalise;
  float router_eps, router_scale;
  // Convolution and attention.
  unsigned long long taps, conv_bias, query_norm, key_norm;
  int cache; // index of the state's or the keys' address; values' follows
  int num_taps, heads, kv_heads, head_dim, splits;
  int chunk_rows; // positions attended at once, up to 64
  int arrivals; // for each kChunk of the input vector
  // Of units a block: so many, and one more in the first blocks.
  int units_each, blocks_more;
  // The residual stream as sums of two words: so many terms of the input, or 0
  // where it is floats; where those are that kCombine adds to.
  int sum_terms, sums_at;
  int embeds; // the first stage: its input is the token's row of the embedding
  int padding;
};

/// In front of the stages. Offsets are in bytes of a block's shared
/// memory.
struct Program {
  int num_stages, dim, vocab, exchange_len;
  int slots, slot_bytes;
  int slots_at, digits_at, scales_at, sums_at, red_at, memory_len;
  int half_head; // 0 without attention
  float log_theta; // log(theta) / half_head
  Matrix embedding;
};

static_assert(sizeof(Stage) % 16 == 0 && sizeof(Program) % 16 == 0);

} // namespace zmlx_decode
