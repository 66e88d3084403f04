# SPDX-License-Identifier: MIT
"""Layers that MLX does not have."""

import mlx.core as mx
import mlx.nn as nn


class PagedAttention(nn.Module):
    """Attention of one new token a sequence over caches cut into blocks.

    Query head h reads key head h // (n_heads / n_kv_heads).
    """

    def __init__(self, n_heads, n_kv_heads, head_dim, scale=None):
        super().__init__()
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError(
                "[PagedAttention] n_heads must be a multiple of n_kv_heads, got"
                f" {n_heads} and {n_kv_heads}."
            )
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.scale = head_dim**-0.5 if scale is None else scale

    def __call__(self, q, k_cache, v_cache, block_table, context_lens):
        """q: (batch, heads, head_dim); caches: (blocks, block size, kv heads,
        head_dim); block_table: (batch, blocks of a sequence); context_lens: (batch).
        A sequence without context gives zeros."""
        if q.ndim != 3 or q.shape[1:] != (self.n_heads, self.head_dim):
            raise ValueError(
                f"[PagedAttention] q must have shape (batch, {self.n_heads},"
                f" {self.head_dim}), got {tuple(q.shape)}."
            )
        batch, blocks = block_table.shape
        length = blocks * k_cache.shape[1]

        def gathered(pages):
            rows = mx.take(pages, block_table, axis=0)
            rows = rows.reshape(batch, length, self.n_kv_heads, self.head_dim)
            return rows.transpose(0, 2, 1, 3)

        seen = mx.arange(length)[None, :] < context_lens[:, None]
        mask = seen[:, None, None, :]
        # What lies beyond the context may be anything, NaN included.
        values = mx.where(seen[:, None, :, None], gathered(v_cache), 0)
        out = mx.fast.scaled_dot_product_attention(
            q[:, :, None, :],
            gathered(k_cache).astype(q.dtype),
            values.astype(q.dtype),
            scale=self.scale,
            mask=mask,
        )
        empty = (context_lens == 0)[:, None, None]
        return mx.where(empty, mx.zeros_like(q), out[:, :, 0, :])


class MoE(nn.Module):
    """A mixture of experts: each token's top k by the gate, weighted by a softmax
    over those k.

    experts: modules of one signature. Every expert sees every token, which is exact
    and differentiable; models with stacked weights should be patched instead.
    """

    def __init__(self, gate, experts, num_experts_per_tok=2):
        super().__init__()
        if not 1 <= num_experts_per_tok <= len(experts):
            raise ValueError(
                f"[MoE] num_experts_per_tok must be 1..{len(experts)}, got"
                f" {num_experts_per_tok}."
            )
        self.gate = gate
        self.experts = experts
        self.num_experts_per_tok = num_experts_per_tok

    def __call__(self, x):
        logits = self.gate(x).astype(mx.float32)
        # Ties go to the lowest index.
        order = mx.stop_gradient(mx.argsort(-logits, axis=-1))
        chosen = order[..., : self.num_experts_per_tok]
        weights = mx.softmax(mx.take_along_axis(logits, chosen, axis=-1), axis=-1)
        total = mx.zeros_like(x)
        for place, expert in enumerate(self.experts):
            share = mx.where(chosen == place, weights, 0.0).sum(-1, keepdims=True)
            total = total + share.astype(x.dtype) * expert(x)
        return total
