// SPDX-License-Identifier: MIT
// Attention to the cached keys and values of one head on the CPU, for kernels
// that share the work among threads themselves.
#pragma once

#include <cstdint>

namespace zmlx::cpu {

/// Keys or values of one head of one sequence, a row of head_dim a position:
/// floats, or fields of 8 or 4 bits with scale * field + bias for each group of
/// group_size (32, 64 or 128), as mlx.core.quantize makes them.
struct CachedRows {
  const float* floats = nullptr; // (positions, head_dim), or null and
  const uint8_t* bytes = nullptr; // (positions, head_dim * bits / 8)
  const float* scales = nullptr; // (positions, head_dim / group_size)
  const float* biases = nullptr; // likewise
  int group_size = 64, bits = 8;
};

/// The same to write: rows of any number of heads.
struct CacheRows {
  float* floats = nullptr;
  uint8_t* bytes = nullptr;
  float *scales = nullptr, *biases = nullptr;
  int group_size = 64, head_dim = 64, bits = 8;

  /// Bytes of a row of fields.
  int64_t row_bytes() const {
    return int64_t{head_dim} * bits / 8;
  }
  /// Stores x (head_dim), rounded as mlx.core.quantize does where rows are
  /// fields.
  void store(int64_t row, const float* x) const;
  /// Rows from `row` on.
  CachedRows from(int64_t row) const;
};

struct CachedHead {
  CachedRows keys, values;
  int head_dim = 64;
};

/// Positions that one call of attend_chunk() takes. Chunks are fixed so that
/// results do not depend on how threads share them.
inline constexpr int64_t kAttentionChunk = 256;

inline int64_t attention_chunks(int64_t seen) {
  return (seen + kAttentionChunk - 1) / kAttentionChunk;
}

/// Floats of a partial result: for each query its unnormalised sum (head_dim),
/// largest score and sum of exponentials.
inline int64_t partial_size(int queries, int head_dim) {
  return int64_t{queries} * (head_dim + 2);
}

/// Queries (count, head_dim), already scaled, over chunk `chunk` of the first
/// `seen` positions. The queries of all heads that share these keys go in one
/// call, which reads the cache once.
void attend_chunk(
    const CachedHead& head,
    const float* queries,
    int count,
    int64_t chunk,
    int64_t seen,
    float* partial);

/// Joins the partial results of all chunks, in order, into out (count,
/// head_dim). `stride` floats lie between the partial results of two chunks.
void merge_chunks(
    const float* partials,
    int64_t stride,
    int64_t chunks,
    int count,
    int head_dim,
    float* out);

/// Many queries: row i, already scaled, over the first seen[i] positions, to
/// out[i]. rows: (count, head_dim). Reads the cache once for all of them; the
/// result of a row does not depend on the others.
void attend_rows(
    const CachedHead& head,
    const float* queries,
    const int64_t* seen,
    int64_t count,
    float* const* out);

} // namespace zmlx::cpu
