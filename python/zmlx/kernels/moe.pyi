# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def route(logits: mx.array, bias: mx.array, score: float, top_k: float, groups: float, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """A router's choice of experts and their weights.

    logits: (..., experts) float
    bias: (experts) float, or none
    score: 0: softmax, 1: sigmoid, 2: softmax of the chosen
    top_k: experts a token, 1 to all
    groups: equal groups of experts, of which half are open
    Returns: (..., top_k) float32, best first
    Differentiable in: logits
    """

def moe_mlp(x: mx.array, router_words: mx.array, router_scales: mx.array, router_biases: mx.array, gate_words: mx.array, gate_scales: mx.array, gate_biases: mx.array, up_words: mx.array, up_scales: mx.array, up_biases: mx.array, down_words: mx.array, down_scales: mx.array, down_biases: mx.array, expert_bias: mx.array, bits: float, group_size: float, top_k: float, sigmoid: float, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Router, gated experts and their weighted sum.

    x: (..., dim) float
    router_words: (experts, dim) packed, uint32
    router_scales: float, one a group
    router_biases: as scales
    gate_words: (experts, hidden, dim) packed, uint32
    gate_scales: float, one a group
    gate_biases: as scales
    up_words: (experts, hidden, dim) packed, uint32
    up_scales: float, one a group
    up_biases: as scales
    down_words: (experts, dim, hidden) packed, uint32
    down_scales: float, one a group
    down_biases: as scales
    expert_bias: (experts) float, or none
    bits: 2, 3, 4, 5, 6 or 8
    group_size: 32, 64 or 128
    top_k: experts a token, 1 to all
    sigmoid: 1: scores are sigmoids, 0: a softmax
    Returns: x's shape and type; float32 inside, but x's type for many rows on a GPU
    Differentiable in: nothing
    """

def gated_mlp(x: mx.array, gate_words: mx.array, gate_scales: mx.array, gate_biases: mx.array, up_words: mx.array, up_scales: mx.array, up_biases: mx.array, down_words: mx.array, down_scales: mx.array, down_biases: mx.array, bits: float, group_size: float, activation: float, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """down(activation(gate x, up x)) with packed weights.

    x: (..., dim) float
    gate_words: (hidden, dim) packed, uint32
    gate_scales: float, one a group
    gate_biases: as scales
    up_words: (hidden, dim) packed, uint32
    up_scales: float, one a group
    up_biases: as scales
    down_words: (dim, hidden) packed, uint32
    down_scales: float, one a group
    down_biases: as scales
    bits: 2, 3, 4, 5, 6 or 8
    group_size: 32, 64 or 128
    activation: 0: silu, 1: gelu by tanh, 2: gelu, 3: relu squared, 4: clamped SwiGLU
    Returns: x's shape and type; float32 inside, but x's type for 8 rows and more on a GPU
    Differentiable in: nothing
    """

def moe_dispatch(x: mx.array, indices: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Each token once for each of its experts, a view.

    x: (..., dim) float
    indices: (..., k) integers
    Returns: (..., k, dim) of x's type
    Differentiable in: x
    """

def moe_combine(expert_outputs: mx.array, weights: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Weighted sum of expert outputs, rounded once.

    expert_outputs: (..., k, dim) float
    weights: (..., k) float
    Returns: (..., dim) of expert_outputs' type
    Differentiable in: expert_outputs, weights
    """

def moe_combine_exact(expert_outputs: mx.array, weights: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Weighted sum of expert outputs, rounded at every step.

    expert_outputs: (..., k, dim) float
    weights: (..., k) float
    Returns: (..., dim) of expert_outputs' type
    Differentiable in: expert_outputs, weights
    """

def moe_combine_fp32(expert_outputs: mx.array, weights: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Weighted sum of expert outputs in float32.

    expert_outputs: (..., k, dim) float
    weights: (..., k) float
    Returns: (..., dim) float32
    Differentiable in: expert_outputs, weights
    """

def gather_qmm_combine(act: mx.array, weights: mx.array, gate: mx.array, indices: mx.array, *, streaming: bool | None = None, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Weighted sum of products with chosen matrices.

    act: (batch, k, in) float
    weights: (experts, in, out) float
    gate: (batch, k) float
    indices: (batch, k) integers
    Returns: (batch, out) of act's type
    Differentiable in: nothing
    """

def gather_qmm_combine_quantized(act: mx.array, weights: mx.array, scales: mx.array, biases: mx.array, gate: mx.array, indices: mx.array, *, group_size: float = 64, bits: float = 4, streaming: bool | None = None, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Weighted sum of products with chosen packed matrices.

    act: (batch, k, in) float
    weights: (experts, out, in) packed, uint32
    scales: float, one a group
    biases: as scales
    gate: (batch, k) float
    indices: (batch, k) integers
    group_size: 32, 64 or 128
    bits: 2, 3, 4, 5, 6 or 8
    Returns: (batch, out) of act's type
    Differentiable in: nothing
    """

def topk_gating_softmax(x: mx.array, k: float = 2, *, expert_bias: mx.array | None = None, norm_topk_prob: float = 1, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> tuple[mx.array, mx.array]:
    """The k best experts of a softmax and their weights.

    x: (..., experts) float
    expert_bias: (experts) float, or none
    k: experts a token
    norm_topk_prob: 1: weights add up to 1
    Returns: (..., k) float32, best first; (..., k) uint32
    Differentiable in: x
    """

def top2_gating_softmax(x: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> tuple[mx.array, mx.array]:
    """The two best experts and a softmax over them.

    x: (..., experts) float
    Returns: (..., k) float32, best first; (..., k) uint32
    Differentiable in: x
    """
