# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def logsumexp_lastdim(x: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """log(sum of exp(x)) over the last axis.

    x: (..., dim) float
    Returns: x's shape less its last axis, x's type
    Differentiable in: x
    """

def masked_softmax(x: mx.array, mask: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Softmax over the places of a mask, 0 elsewhere.

    x: (..., dim) float
    mask: bool, broadcasts to x
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def scale_mask_softmax(x: mx.array, mask: mx.array, scale: float, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Softmax of scale x over the places of a mask.

    x: (..., dim) float
    mask: bool, broadcasts to x
    scale: any finite number
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def attention(queries: mx.array, keys: mx.array, values: mx.array, query_norm: mx.array, key_norm: mx.array, cached_keys: mx.array, cached_values: mx.array, heads: float, kv_heads: float, head_dim: float, offset: float, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> tuple[mx.array, mx.array, mx.array]:
    """Norm, rotary embedding, cache update and causal grouped-query attention.

    queries: (batch, length, heads * head_dim) float32
    keys: (batch, length, kv_heads * head_dim) float32
    values: as keys
    query_norm: (head_dim) float
    key_norm: (head_dim) float
    cached_keys: (batch, kv_heads, capacity, head_dim) float32
    cached_values: as cached_keys
    heads: query heads, a multiple of kv_heads
    kv_heads: heads of the cache
    head_dim: even
    offset: the first new position
    Returns: as queries; with the new rows; with the new rows
    Differentiable in: nothing
    Runs on the CPU only.
    """
