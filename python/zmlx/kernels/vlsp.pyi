# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def fused_recurrent_step(h: mx.array, w_norm: mx.array, gate: mx.array, alpha: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """h + alpha silu(rms_norm(h) w_norm) gate.

    h: (..., dim) float
    w_norm: (dim) float
    gate: (..., dim) float
    alpha: a scalar, or what broadcasts with h, float
    eps: added to the mean square
    Returns: the type that all promote to; float32 inside
    Differentiable in: h, w_norm, gate, alpha
    """

def depth_gate_sigmoid(x: mx.array, *, k_max: float = 8, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """sigmoid(x) k_max.

    x: any shape, float
    k_max: the most steps
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def grpo_advantage_norm(rewards: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """(r - mean) / sqrt(variance + eps) of each row.

    rewards: (..., samples) float
    eps: added to the variance
    Returns: as rewards; float32 inside
    Differentiable in: rewards
    """

def silu_mul_residual(gate: mx.array, up: mx.array, residual: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """silu(gate) up + residual.

    gate: any shape, float
    up: broadcasts with gate, float
    residual: broadcasts with gate, float
    Returns: the type that all promote to; float32 inside
    Differentiable in: gate, up, residual
    """
